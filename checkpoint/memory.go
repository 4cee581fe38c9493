package checkpoint

import (
	"context"
	"net/url"
	"slices"
	"time"
)

func init() {
	register("memory", "memory://", onlyScheme, func(_ context.Context, _ *url.URL, o Options) (Store, error) {
		m := NewMemory(o.Slot)
		m.age = o.historyAge()
		return m, nil
	})
}

// Memory is a store that lasts as long as the value: for tests, and for runs that
// nobody goes on from. What is saved in it is not durable, so after a restart a
// slot that was moved by someone else goes unnoticed. Close keeps what it holds.
type Memory struct {
	slot  string
	saved Position
	kept  bool

	history []Entry
	age     time.Duration
}

// NewMemory is a store for the position of slot.
func NewMemory(slot string) *Memory { return &Memory{slot: slot, age: DefaultHistoryAge} }

// Load is Store's.
func (m *Memory) Load(ctx context.Context) (Position, error) {
	switch {
	case ctx.Err() != nil:
		return Position{}, context.Cause(ctx)
	case !m.kept:
		return Position{}, ErrNone
	default:
		return m.saved, nil
	}
}

// Save is Store's.
func (m *Memory) Save(ctx context.Context, p Position) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := complete(p, m.slot); err != nil {
		return err
	}
	if m.kept {
		if err := follow(m.saved, p); err != nil {
			return err
		}
	}
	m.saved, m.kept = p, true
	return nil
}

// Keep is Historian's.
func (m *Memory) Keep(ctx context.Context, e Entry) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := completeEntry(e, m.slot); err != nil {
		return err
	}
	m.history = add(m.history, e, m.age)
	return nil
}

// History is Historian's.
func (m *Memory) History(ctx context.Context) ([]Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.Clone(m.history), nil
}

// Replace is Historian's.
func (m *Memory) Replace(ctx context.Context, e Entry) error {
	if err := m.Keep(ctx, e); err != nil {
		return err
	}
	m.saved, m.kept = e.Position, true
	return nil
}

// Delete is Historian's.
func (m *Memory) Delete(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.saved, m.kept, m.history = Position{}, false, nil
	return nil
}

// Close is Store's.
func (m *Memory) Close() error { return nil }
