package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Drop removes what a stream has in the database and in its store: the slot with its
// bookmarks and its replay window, the publication, and the saved position with its
// history. Tables and topics stay, and a publication that another slot may read with or
// that is another role's. approve is shown what goes and what stays, and its error ends
// everything before anything is removed, as a right does that is missing; say is told of
// each thing that is gone.
//
// The slot goes first: should this end in the middle, a stream finds its position
// without a slot, which it refuses, and never a slot without its position.
func Drop(ctx context.Context, config Config, approve func(goes, stays []string) error, say func(removed string)) error {
	config.setDefaults()
	if err := errors.Join(config.Wal.Validate(), checkpoint.CheckURL(config.Checkpoint)); err != nil {
		return err
	}
	store, err := checkpoint.Open(ctx, config.Checkpoint, config.storeOptions())
	if err != nil {
		return err
	}
	err = withConn(ctx, config.Wal, func(conn *wal.Conn) error {
		d := dropping{config: config, conn: conn, store: store}
		if err := d.look(ctx); err != nil {
			return err
		}
		if len(d.all) == 0 {
			nothing := strings.Join(append([]string{fmt.Sprintf("there is no slot %s, no publication and no position to remove", config.Wal.Slot)}, d.kept...), " ")
			return fault.NewOperator(errors.New(nothing), "check --slot and --database-url")
		}
		var goes []string
		for _, t := range d.all {
			goes = append(goes, t.name)
		}
		if err := approve(goes, d.kept); err != nil {
			return err
		}
		for _, t := range d.all {
			if err := t.remove(ctx); err != nil {
				return err
			}
			say(t.name)
		}
		return nil
	})
	return errors.Join(err, store.Close())
}

type dropping struct {
	config Config
	conn   *wal.Conn
	store  checkpoint.Store
	all    []thing  // in the order in which they go
	kept   []string // sentences about what stays
}

// thing is what there is to remove.
type thing struct {
	name   string
	remove func(ctx context.Context) error
}

func (d *dropping) look(ctx context.Context) error {
	slots, err := d.conn.Slots(ctx)
	if err != nil {
		return err
	}
	var others []string
	for i := range slots {
		s := &slots[i]
		own := s.Name == d.config.Wal.Slot
		if !own && !strings.HasPrefix(s.Name, d.config.Wal.Slot+bookmarkInfix) && s.Name != d.config.Wal.Slot+trailSuffix {
			others = append(others, s.Name)
			continue
		}
		if s.Active {
			holder := fmt.Sprintf("pid %d", s.ActivePID)
			if h, ok, err := d.conn.Holder(ctx); err == nil && ok && own {
				holder = h.String()
			}
			return fault.NewOperator(fmt.Errorf("slot %s is in use by %s", s.Name, holder), "stop it first")
		}
		d.all = append(d.all, thing{
			fmt.Sprintf("slot %s, which stands at %v", s.Name, s.Confirmed),
			func(ctx context.Context) error { return d.conn.DropNamed(ctx, s.Name) },
		})
	}
	if err := d.publication(ctx, others); err != nil {
		return err
	}
	if err := d.position(ctx); err != nil {
		return err
	}
	return d.registration(ctx)
}

// registration goes last: while it is there, a slot without a position is no first
// start.
func (d *dropping) registration(ctx context.Context) error {
	at, there, err := d.conn.Streamed(ctx)
	if err == nil && there {
		if err := d.conn.CheckDelete(ctx, "outbox_table", "unsure"); err != nil {
			return err
		}
		d.all = append(d.all, thing{fmt.Sprintf("the note that it was streamed from %v on", at), d.conn.Unregister})
	}
	return err
}

// publication stays while another slot of the database may read with it: that one
// could then never be read again. It stays, too, where it is not ours: it was made by the
// owner of the tables, and the role that streams is another.
func (d *dropping) publication(ctx context.Context, others []string) error {
	there, err := d.conn.HasPublication(ctx)
	if err != nil || !there {
		return err
	}
	if len(others) > 0 {
		d.kept = append(d.kept, fmt.Sprintf("(publication %s stays: slot %s may read with it)", d.config.Wal.Publication, strings.Join(others, ", ")))
		return nil
	}
	owns, err := d.conn.OwnsPublication(ctx)
	if err != nil {
		return err
	}
	if !owns {
		d.kept = append(d.kept, fmt.Sprintf("(publication %s stays: its owner may run `outboxcdc drop` after this to remove it)", d.config.Wal.Publication))
		return nil
	}
	d.all = append(d.all, thing{
		"publication " + d.config.Wal.Publication,
		func(ctx context.Context) error { return d.conn.DropPublication(ctx) },
	})
	return nil
}

func (d *dropping) position(ctx context.Context) error {
	saved, err := d.store.Load(ctx)
	if errors.Is(err, checkpoint.ErrNone) {
		return nil
	}
	historian, ok := d.store.(checkpoint.Historian)
	if err != nil || !ok {
		return err
	}
	if _, inDatabase := d.store.(checkpoint.Entitled); inDatabase {
		if err := d.conn.CheckDelete(ctx, "checkpoint", "history"); err != nil {
			return err
		}
	}
	d.all = append(d.all, thing{fmt.Sprintf("saved position %v and its history", saved.LSN), historian.Delete})
	return nil
}
