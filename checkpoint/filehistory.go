package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// The history of a fileStore is a file beside the position, one line for each entry.
// An entry is appended and synced; a crash may leave half a line at the end, which
// is cut off by the next one and was never said to be kept. What is too old is
// removed by writing the file anew, when a good part of it is.

const maxHistoryBytes = 256 << 20 // far more than a week of minutes takes

func (s *fileStore) historyPath() string { return s.path + ".history" }

// Keep is Historian's.
func (s *fileStore) Keep(ctx context.Context, e Entry) error {
	return s.locked(ctx, func() error { return s.keep(e) })
}

// Replace is Historian's. The entry comes first: a gap that is noted and not yet
// taken is accepted again, one that is taken and not noted would be forgotten.
func (s *fileStore) Replace(ctx context.Context, e Entry) error {
	return s.locked(ctx, func() error {
		if err := s.keep(e); err != nil {
			return err
		}
		content, err := renderFile(e.Position)
		if err != nil {
			return bug("%w", err)
		}
		return s.replace(s.path, content)
	})
}

// Delete is Historian's.
func (s *fileStore) Delete(ctx context.Context) error {
	return s.locked(ctx, func() error {
		for _, path := range []string{s.path, s.historyPath()} {
			if err := s.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return s.explain("remove", err)
			}
		}
		return s.explain("sync the directory of", s.sync(filepath.Dir(s.path)))
	})
}

// History is Historian's.
func (s *fileStore) History(ctx context.Context) (entries []Entry, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	entries, _, err = s.readHistory()
	if err == nil && len(entries) > 0 {
		entries = trim(entries, entries[len(entries)-1].Time.Add(-s.age))
	}
	return entries, err
}

// locked does what changes files, while no other process does.
func (s *fileStore) locked(ctx context.Context, do func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return s.explain("lock", err)
	}
	defer unlock()
	return do()
}

func (s *fileStore) keep(e Entry) error {
	if err := completeEntry(e, s.slot); err != nil {
		return err
	}
	line, err := renderForm(e)
	if err != nil {
		return bug("%w", err)
	}
	entries, whole, err := s.readHistory()
	if err != nil {
		return err
	}
	last := len(entries) - 1
	inOrder := last < 0 || entries[last].Time.Before(e.Time)
	// A day more than is needed stays, so that the file is written anew once a day
	// and not once a minute.
	old := last >= 0 && len(trim(entries, e.Time.Add(-s.age-historySlack))) <= last
	if whole && inOrder && !old {
		return s.explain("append to the history of", s.appendLine(append(line, '\n')))
	}
	return s.rewrite(add(entries, e, s.age))
}

const historySlack = 24 * time.Hour

func (s *fileStore) appendLine(line []byte) error {
	f, err := s.disk.extend(s.historyPath())
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return s.sync(filepath.Dir(s.path)) // it may have been the first
}

func (s *fileStore) rewrite(entries []Entry) error {
	var content bytes.Buffer
	for i := range entries {
		line, err := renderForm(entries[i])
		if err != nil {
			return bug("%w", err)
		}
		content.Write(append(line, '\n'))
	}
	return s.replace(s.historyPath(), content.Bytes())
}

// readHistory gives the entries; whole is false when the file ends in the middle of
// a line, or when its end is not a line's.
func (s *fileStore) readHistory() (entries []Entry, whole bool, err error) {
	f, err := s.disk.open(s.historyPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, s.explain("read the history of", err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxHistoryBytes))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, false, s.explain("read the history of", err)
	}
	for len(content) > 0 {
		line, rest, ended := bytes.Cut(content, []byte{'\n'})
		if !ended {
			return entries, false, nil
		}
		e, err := parseForm(line)
		if err == nil && e.Slot != s.slot {
			err = fmt.Errorf("an entry is of slot %q", e.Slot)
		}
		if err != nil {
			return nil, false, fault.NewOperator(fmt.Errorf("read the history %s, line %d: %w", s.historyPath(), len(entries)+1, err),
				"restore it from a backup, or move it away: replay and recover then know nothing of before")
		}
		entries, content = append(entries, e), rest
	}
	return entries, true, nil
}
