//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// trap is where the process dies.
type trap struct {
	point  Point
	passes atomic.Int64 // that are left
	panics bool         // as a bug would, instead of dying as in a power cut
}

var armed = arm(os.Getenv("OUTBOXCDC_FAILPOINT")) //nolint:gochecknoglobals // the process' own, as its death is

// arm understands point:passes and point:passes:panic. A text that it does not understand is a mistake in
// a test, which is not to run as if it had asked for nothing.
func arm(text string) *trap {
	if text == "" {
		return nil
	}
	point, rest, _ := strings.Cut(text, ":")
	count, end, _ := strings.Cut(rest, ":")
	passes, err := strconv.ParseInt(count, 10, 64)
	if err != nil || passes < 1 || end != "" && end != "panic" {
		panic(fmt.Sprintf("OUTBOXCDC_FAILPOINT=%q is not point:passes or point:passes:panic", text))
	}
	t := &trap{point: Point(point), panics: end == "panic"}
	t.passes.Store(passes)
	return t
}

// Pass ends the process when this is the point and the pass that it was armed for.
// SIGKILL leaves no time for anything: no deferred call, no flush, no goodbye.
func Pass(p Point) {
	if armed == nil || armed.point != p || armed.passes.Add(-1) != 0 {
		return
	}
	if armed.panics {
		panic(fmt.Sprintf("bug: planted %s", p))
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(fmt.Sprintf("die at %s: %v", p, err))
	}
	select {} // the signal is on its way
}
