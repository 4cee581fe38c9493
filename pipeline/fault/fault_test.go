package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestEachClassHasItsExitCode(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err   error
		class fault.Class
		exit  int
	}{
		{nil, fault.Stopped, 0},
		{fmt.Errorf("wait: %w", context.Canceled), fault.Stopped, 0},
		{cause, fault.Transient, 1},
		{io.ErrUnexpectedEOF, fault.Transient, 1},
		{context.DeadlineExceeded, fault.Transient, 1},
		{&fault.Error{Class: fault.Bug, Err: cause}, fault.Bug, 2},
		{fault.NewOperator(cause, "mend it"), fault.Operator, 3},
		{fmt.Errorf("open: %w", fault.NewOperator(cause, "mend it")), fault.Operator, 3},
		{fault.NewData(cause, "mend it"), fault.Data, 4},
		{fault.NewUsage(cause, "mend it"), fault.Usage, 5},
		{errors.Join(fault.ErrDrainTimeout, cause), fault.Transient, 6},
		// The outermost class decides: whoever wraps an error knows more.
		{fault.NewOperator(fault.NewData(cause, "inner"), "outer"), fault.Operator, 3},
	} {
		if got := fault.Classify(c.err); got != c.class {
			t.Errorf("class of %v is %v, want %v", c.err, got, c.class)
		}
		if got := fault.ExitCode(c.err); got != c.exit {
			t.Errorf("exit code of %v is %d, want %d", c.err, got, c.exit)
		}
	}
}

func TestFailuresAreToldTogetherAndWarningsAreNot(t *testing.T) {
	err := fault.Failures([]fault.Finding{
		{Severity: fault.OK, Subject: "server", Problem: "is fine"},
		{Severity: fault.Warning, Subject: "broker", Problem: "keeps one copy", Fix: "keep three"},
		{Severity: fault.Failure, Subject: "slot orders", Problem: "is lost", Fix: "make it anew"},
		{Severity: fault.Failure, Subject: "table outbox", Problem: "is missing", Fix: "run init"},
	})
	const want = "slot orders: is lost: make it anew\ntable outbox: is missing: run init"
	if err == nil || err.Error() != want || fault.Classify(err) != fault.Operator {
		t.Errorf("failures %q, want %q as an operator error", err, want)
	}
	if err := fault.Failures(nil); err != nil {
		t.Errorf("no findings gave %v, want nil", err)
	}
}
