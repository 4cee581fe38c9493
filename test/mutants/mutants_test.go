package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A change of the code must take its mutants along: one whose text is gone plants
// nothing.
func TestEveryMutantStillFindsItsText(t *testing.T) {
	for _, m := range all() {
		source, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: the text to replace stands %d times in %s, want once", m.name, n, m.file)
		}
	}
}
