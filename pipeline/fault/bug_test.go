package fault_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func trailing(s []int) int { return len(s) }

// caught gives the error that is made of what f panics with.
func caught(f func()) error {
	return fault.Guard(func() error {
		f()
		return nil
	})
}

func TestAPanicBecomesOneLineThatNamesItsPlace(t *testing.T) {
	var none []int
	for name, c := range map[string]struct {
		f    func()
		want string
	}{
		"of ours":         {func() { panic("bug: confirm 0/5") }, `bug: confirm 0/5 \(at fault/bug_test.go:\d+, from fault/bug_test.go:\d+, .*`},
		"of the runtime":  {func() { none[trailing(none)] = 1 }, `bug: runtime error: index out of range \[0\] with length 0 \(at fault/bug_test.go:\d+, .*`},
		"with an error":   {func() { panic(errors.New("s3cret")) }, `bug: panic with a \*errors.errorString \(at fault/bug_test.go:\d+, .*`},
		"with a value":    {func() { panic([]string{"s3cret"}) }, `bug: panic with a \[\]string \(at fault/bug_test.go:\d+, .*`},
		"while panicking": {func() { defer func() { panic("second") }(); panic("first") }, `bug: second \(at fault/bug_test.go:\d+, .*`},
	} {
		t.Run(name, func(t *testing.T) {
			err := caught(c.f)
			if fault.Classify(err) != fault.Bug || fault.ExitCode(err) != fault.ExitBug {
				t.Fatalf("a panic became %v, want an error of class bug", err)
			}
			if text := err.Error(); !regexp.MustCompile("^"+c.want+"$").MatchString(text) || strings.Contains(text, "s3cret") {
				t.Errorf("the error is %q, want one line like %q", text, c.want)
			}
		})
	}
}

func TestAFunctionThatDoesNotPanicTellsNothing(t *testing.T) {
	if err := caught(func() {}); err != nil {
		t.Errorf("caught %v where nothing panicked", err)
	}
}
