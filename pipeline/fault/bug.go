package fault

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// Catch turns the panic of a function that defers it into an error of class Bug and
// hands it to tell, which must not panic. A goroutine's panic can be caught by that goroutine alone, so
// each owner of one defers it, and the process ends with a sentence where Go would
// print stacks.
//
// Nothing is mended by it. What panicked may have left anything half done, so whoever
// is told ends the process, and neither saves nor confirms.
func Catch(tell func(error)) {
	if value := recover(); value != nil { //nolint:revive // Catch is the deferred function
		tell(&Error{Class: Bug, Err: fmt.Errorf("bug: %s (%s)", bugText(value), trail())})
	}
}

// Guard runs f and gives its error, or the bug that it panics with.
func Guard(f func() error) (err error) {
	defer Catch(func(bug error) { err = bug })
	return f()
}

// bugText is what a panic says. Strings and the runtime's errors are written by
// programmers; other errors and values may carry payloads, and only their type is
// shown.
func bugText(value any) string {
	switch v := value.(type) {
	case string:
		return strings.TrimPrefix(v, "bug: ")
	case runtime.Error:
		return v.Error()
	default:
		return fmt.Sprintf("panic with a %T", value)
	}
}

// trailLength is how many places a trail names: enough to find the way that led to a
// panic, and short enough for a line.
const trailLength = 6

// trail names the places from the one that panicked outwards, on one line.
func trail() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	var places []string
	panicked := false
	for {
		frame, more := frames.Next()
		ours := !strings.HasPrefix(frame.Function, "runtime.")
		switch {
		case frame.Function == "runtime.gopanic":
			panicked, places = true, nil // of several the innermost frame comes first, the first panic last
		case panicked && ours && len(places) < trailLength:
			places = append(places, fmt.Sprintf("%s:%d", path.Join(path.Base(path.Dir(frame.File)), path.Base(frame.File)), frame.Line))
		}
		if !more {
			return "at " + strings.Join(places, ", from ")
		}
	}
}
