package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// nearest is the name that word is most likely meant to be: one that one slip of the
// finger makes of it, or two where the word is long. Empty when there is none.
func nearest(word string, names []string) string {
	bound := 1
	if len(word) >= 6 {
		bound = 2
	}
	best := ""
	for _, name := range names {
		if slipsBetween := slips(word, name); slipsBetween <= bound {
			best, bound = name, slipsBetween-1
		}
	}
	return best
}

// slips is how many letters must be put in, left out, changed or swapped with their
// neighbour to make b of a (the distance of optimal string alignment).
func slips(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// misspelt finds variables that are all but those of a setting: an environment is
// where a slip changes nothing and says nothing. Other names that begin as ours do are
// left alone; Kubernetes makes some for a service that is called outboxcdc.
func (p *program) misspelt() error {
	known := p.knownFlags()
	twins := make([]string, 0, 2*len(known))
	for name := range known {
		ours := strings.TrimPrefix(twin(name), twin(""))
		twins = append(twins, ours, ours+"_FILE")
	}
	slices.Sort(twins)
	var errs []error
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		ours, found := strings.CutPrefix(name, twin(""))
		if !found || slices.Contains(twins, ours) {
			continue
		}
		if meant := nearest(ours, twins); meant != "" {
			errs = append(errs, fault.NewUsage(fmt.Errorf("the variable %s is not a setting", name), "do you mean "+twin("")+meant+"?"))
		}
	}
	return errors.Join(errs...)
}
