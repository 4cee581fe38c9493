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
}

var armed = arm(os.Getenv("OUTBOXCDC_FAILPOINT")) //nolint:gochecknoglobals // the process' own, as its death is

// arm understands point:passes. A text that it does not understand is a mistake in
// a test, which is not to run as if it had asked for nothing.
func arm(text string) *trap {
	if text == "" {
		return nil
	}
	point, count, _ := strings.Cut(text, ":")
	passes, err := strconv.ParseInt(count, 10, 64)
	if err != nil || passes < 1 {
		panic(fmt.Sprintf("OUTBOXCDC_FAILPOINT=%q is not point:passes", text))
	}
	t := &trap{point: Point(point)}
	t.passes.Store(passes)
	return t
}

// Pass ends the process when this is the point and the pass that it was armed for.
// SIGKILL leaves no time for anything: no deferred call, no flush, no goodbye.
func Pass(p Point) {
	if armed == nil || armed.point != p || armed.passes.Add(-1) != 0 {
		return
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
