package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// screen is what the user sees. Several goroutines write whole lines to it.
type screen struct {
	mu  sync.Mutex
	out io.Writer
}

// Write takes whole lines and sets them off as somebody else's.
func (s *screen) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		s.printf("  | %s", line)
	}
	return len(b), nil
}

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...) //nolint:errcheck // nobody is left to tell
}

func (s *screen) title(text string) { s.printf("\n== %s\n", text) }
