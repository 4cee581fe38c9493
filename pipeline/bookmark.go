package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// A bookmark is a copy of a stream's slot that stays where the slot was, so that a
// replay can begin there. It pins the log from that place on, and the catalog's old
// rows, until it is dropped. Its name tells whose it is.
const (
	bookmarkInfix = "__bookmark_"
	trailSuffix   = "__replay" // of the slot that trails behind the stream
)

// Bookmark is one of a slot's bookmarks, or the end of its replay window.
type Bookmark struct {
	Name string // as it was created; empty for the replay window
	Slot wal.Slot
}

// Lost says that the server has given the bookmark up.
func (b Bookmark) Lost() bool { return b.Slot.Lost() }

// bookmarkSlot is the name of the slot behind a bookmark.
func bookmarkSlot(slot, name string) (string, error) {
	full := slot + bookmarkInfix + name
	if name == "" || wal.CheckSlotName(full) != nil {
		return "", fault.NewUsage(fmt.Errorf("%q cannot be the name of a bookmark of slot %s", name, slot),
			fmt.Sprintf("use 1 to %d lower-case letters, digits and underscores", max(1, 63-len(slot)-len(bookmarkInfix))))
	}
	return full, nil
}

// CreateBookmark makes a bookmark where the slot stands now. It works while a stream
// runs, which notices nothing.
func CreateBookmark(ctx context.Context, config wal.Config, name string) (Bookmark, error) {
	full, err := bookmarkSlot(config.Slot, name)
	if err != nil {
		return Bookmark{}, err
	}
	made := Bookmark{Name: name}
	err = withConn(ctx, config, func(conn *wal.Conn) error {
		if err := conn.CopySlot(ctx, config.Slot, full); err != nil {
			return err
		}
		all, err := bookmarks(ctx, conn, config.Slot)
		for i := range all {
			if all[i].Name == name {
				made = all[i]
			}
		}
		return err
	})
	if err != nil {
		return Bookmark{}, fmt.Errorf("create bookmark %s: %w", name, err)
	}
	return made, nil
}

// DropBookmark removes a bookmark.
func DropBookmark(ctx context.Context, config wal.Config, name string) error {
	full, err := bookmarkSlot(config.Slot, name)
	if err != nil {
		return err
	}
	err = withConn(ctx, config, func(conn *wal.Conn) error { return conn.DropNamed(ctx, full) })
	if err != nil {
		return fmt.Errorf("drop bookmark %s: %w", name, err)
	}
	return nil
}

// Bookmarks lists a slot's bookmarks and its replay window, by name.
func Bookmarks(ctx context.Context, config wal.Config) (all []Bookmark, err error) {
	err = withConn(ctx, config, func(conn *wal.Conn) error {
		all, err = bookmarks(ctx, conn, config.Slot)
		return err
	})
	return all, err
}

func bookmarks(ctx context.Context, conn *wal.Conn, slot string) ([]Bookmark, error) {
	slots, err := conn.Slots(ctx)
	if err != nil {
		return nil, err
	}
	var all []Bookmark
	for i := range slots {
		s := slots[i]
		name, marked := strings.CutPrefix(s.Name, slot+bookmarkInfix)
		switch {
		case marked && name != "":
			all = append(all, Bookmark{Name: name, Slot: s})
		case s.Name == slot+trailSuffix:
			all = append(all, Bookmark{Slot: s})
		}
	}
	return all, nil
}

// withConn opens a connection for the time of do.
func withConn(ctx context.Context, config wal.Config, do func(conn *wal.Conn) error) error {
	conn, err := wal.Connect(ctx, config)
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(context.WithoutCancel(ctx)))
}
