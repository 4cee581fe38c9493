package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Window is how far back events can be replayed exactly: a slot trails so far behind
// the stream's. Zero fields do not limit; the zero Window keeps no slot.
type Window struct {
	Age   time.Duration
	Bytes int64 // of log
}

// DefaultWindowBytes bounds a window that is given as a time alone: the log of that
// time may be more than the disk holds.
const DefaultWindowBytes = 50 << 30

// ParseWindow reads 24h, 50GB or both with a comma between them. Units of bytes are
// powers of 1024, as in Postgres' settings. Empty is no window.
func ParseWindow(text string) (w Window, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		age, ageErr := time.ParseDuration(part)
		bytes, bytesErr := parseBytes(part)
		switch {
		case text == "":
		case ageErr == nil && age > 0 && w.Age == 0:
			w.Age = age
		case bytesErr == nil && w.Bytes == 0:
			w.Bytes = bytes
		default:
			return Window{}, fault.NewUsage(errors.New("the replay window is neither a time nor a size"), "write 24h, 50GB, or 24h,50GB")
		}
	}
	if w.Age > 0 && w.Bytes == 0 {
		w.Bytes = DefaultWindowBytes
	}
	return w, nil
}

func parseBytes(text string) (int64, error) {
	for i, unit := range []string{"MB", "GB", "TB"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
			if err == nil && n <= 0 {
				err = errors.New("not positive")
			}
			return n << (20 + 10*i), err
		}
	}
	return 0, errors.New("no unit")
}

// DefaultTrailInterval is how often the trailing slot is moved. Moving it makes the server
// read the log in between once more.
const DefaultTrailInterval = time.Minute

// trail keeps a slot at the far end of the window. It is beside the stream and not
// of it: when it fails, that is logged, and the stream goes on. Rather than endanger
// the server's disk, or the log that the server will keep for a slot at all, it gives
// the window up.
type trail struct {
	config  wal.Config
	window  Window
	logger  *slog.Logger
	history func(ctx context.Context) ([]checkpoint.Entry, error) // for the time before this process

	marks []mark // where the live slot stood when, the oldest first
	keep  int64  // max_slot_wal_keep_size in bytes, -1 without a limit
	told  string // the last complaint, so that each is made once
}

type mark struct {
	at   wal.LSN
	when time.Time
}

// run moves the slot until ctx ends, which is no error. Nothing else ends it.
func (t *trail) run(ctx context.Context, interval time.Duration) error {
	clock := time.NewTicker(interval)
	defer clock.Stop()
	if entries, err := t.history(ctx); err == nil {
		for i := range entries {
			t.marks = append(t.marks, mark{entries[i].LSN, entries[i].Time})
		}
	}
	for {
		err := withConn(ctx, t.config, func(conn *wal.Conn) error { return t.step(ctx, conn) })
		t.complain(ctx, err)
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
	}
}

// complain logs an error once until another one takes its place.
func (t *trail) complain(ctx context.Context, err error) {
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != t.told {
		t.logger.Warn("the replay window is not kept as asked", slog.String("error", text))
	}
	t.told = text
}

// step makes the slot, moves it, or gives it up.
func (t *trail) step(ctx context.Context, conn *wal.Conn) error {
	live, there, err := conn.Slot(ctx)
	if err != nil || !there || live.Confirmed == 0 {
		return err
	}
	t.marks = append(t.marks, mark{live.Confirmed, time.Now()})
	name := t.config.Slot + trailSuffix
	slot, there, err := t.find(ctx, conn, name)
	if err != nil {
		return err
	}
	if there && slot.Lost() {
		t.logger.Warn("the server gave up the slot of the replay window, which begins anew", slog.String("slot", name))
		if err := conn.DropNamed(ctx, name); err != nil {
			return err
		}
		there = false
	}
	if t.keep, err = conn.KeepBytes(ctx); err != nil {
		return err
	}
	if !there {
		if t.endangers(live) != "" {
			return fmt.Errorf("slot %s keeps so much log itself that there is no room for a window", live.Name)
		}
		return conn.CopySlot(ctx, live.Name, name)
	}
	return t.move(ctx, conn, slot, live)
}

func (t *trail) find(ctx context.Context, conn *wal.Conn, name string) (wal.Slot, bool, error) {
	slots, err := conn.Slots(ctx)
	for i := range slots {
		if slots[i].Name == name {
			return slots[i], true, err
		}
	}
	return wal.Slot{}, false, err
}

func (t *trail) move(ctx context.Context, conn *wal.Conn, slot, live wal.Slot) error {
	if to := t.target(live, slot); to > slot.Confirmed {
		if _, err := conn.AdvanceSlot(ctx, slot.Name, to); err != nil {
			return err
		}
	}
	slot, there, err := t.find(ctx, conn, slot.Name)
	if err != nil || !there {
		return err
	}
	why := t.endangers(slot)
	if why == "" || live.RetainedBytes >= slot.RetainedBytes { // to drop it would free nothing
		return nil
	}
	if err := conn.DropNamed(ctx, slot.Name); err != nil {
		return err
	}
	return fmt.Errorf("slot %s was dropped: %s", slot.Name, why)
}

// target is where the slot is to stand: as far forward as either bound asks for, and
// never ahead of the stream.
func (t *trail) target(live, slot wal.Slot) wal.LSN {
	now := time.Now()
	var to wal.LSN
	if t.window.Age > 0 {
		old := 0
		for old < len(t.marks) && now.Sub(t.marks[old].when) >= t.window.Age {
			to = max(to, t.marks[old].at)
			old++
		}
		t.marks = t.marks[max(0, old-1):]
	} else {
		t.marks = nil
	}
	if end := slot.Restart + wal.LSN(slot.RetainedBytes); t.window.Bytes > 0 && end > wal.LSN(t.window.Bytes) {
		to = max(to, end-wal.LSN(t.window.Bytes))
	}
	return min(to, live.Confirmed)
}

// endangers says why a slot cannot be kept; empty when it can. A slot keeps log from
// where it would read again, which an old transaction holds back; so it may keep more
// than the window.
func (t *trail) endangers(slot wal.Slot) string {
	switch {
	case slot.WALStatus == "unreserved":
		return "the server is about to give it up, max_slot_wal_keep_size is reached"
	case t.keep >= 0 && slot.RetainedBytes > t.keep/4*3:
		return fmt.Sprintf("it kept %d MiB of log, and max_slot_wal_keep_size is %d MiB", slot.RetainedBytes>>20, t.keep>>20)
	case t.window.Bytes > 0 && slot.RetainedBytes > 2*t.window.Bytes+slackBytes:
		return fmt.Sprintf("it kept %d MiB of log, twice the window of %d MiB", slot.RetainedBytes>>20, t.window.Bytes>>20)
	default:
		return ""
	}
}

// slackBytes is what any slot may keep: log goes by segments and checkpoints.
const slackBytes = 64 << 20
