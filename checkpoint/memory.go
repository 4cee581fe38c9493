package checkpoint

import (
	"context"
	"net/url"
)

func init() {
	register("memory", "memory://", onlyScheme, func(_ context.Context, _ *url.URL, o Options) (Store, error) {
		return NewMemory(o.Slot), nil
	})
}

// Memory is a store that lasts as long as the value: for tests, and for runs that
// nobody goes on from. What is saved in it is not durable, so after a restart a
// slot that was moved by someone else goes unnoticed. Close keeps what it holds.
type Memory struct {
	slot  string
	saved Position
	kept  bool
}

// NewMemory is a store for the position of slot.
func NewMemory(slot string) *Memory { return &Memory{slot: slot} }

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

// Close is Store's.
func (m *Memory) Close() error { return nil }
