// Package fault says who can mend an error. It is a leaf: every package attaches
// a class where it knows the cause, and Classify reads it in the two places that
// act on it, the supervisor and the exit code.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Class is who can mend an error.
type Class int

// The classes. Transient is the zero value: what nobody classified is retried,
// because to retry loses nothing.
const (
	Transient Class = iota // time: a new session after back-off
	Stopped                // nobody: it was asked for
	Operator               // the person who runs Postgres, the broker or us
	Data                   // whoever wrote the row
	Usage                  // whoever wrote the command line
	Bug                    // us
)

// Exit statuses of the command. A drain that ran out of time is the one outcome
// with a status of its own outside the classes.
const (
	ExitOK           = 0
	ExitTransient    = 1
	ExitBug          = 2
	ExitOperator     = 3
	ExitData         = 4
	ExitUsage        = 5
	ExitDrainTimeout = 6
)

// ErrDrainTimeout ends a stop that could not deliver, or save, in time what was sent.
var ErrDrainTimeout = errors.New("drain timed out")

// String names the class as logs and metrics do.
func (c Class) String() string {
	switch c {
	case Stopped:
		return "stopped"
	case Operator:
		return "operator"
	case Data:
		return "data"
	case Usage:
		return "usage"
	case Bug:
		return "bug"
	default:
		return "transient"
	}
}

// Error is an error with its class and, for people, the way out.
type Error struct {
	Class  Class
	Err    error  // what happened, naming the thing
	Advice string // what to do about it: a sentence, or empty
}

// Error gives what happened and the way out.
func (e *Error) Error() string {
	if e.Advice == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v: %s", e.Err, e.Advice)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NewOperator is an operator error: what is wrong, and what to do.
func NewOperator(err error, advice string) error {
	return &Error{Class: Operator, Err: err, Advice: advice}
}

// NewData is an error of one row or message.
func NewData(err error, advice string) error {
	return &Error{Class: Data, Err: err, Advice: advice}
}

// NewUsage is an error of flags or configuration.
func NewUsage(err error, advice string) error {
	return &Error{Class: Usage, Err: err, Advice: advice}
}

// Classify finds the class of err: that of the outermost Error in its chain,
// Stopped for nil and for a cancelled context, else Transient.
func Classify(err error) Class {
	var e *Error
	switch {
	case err == nil:
		return Stopped
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.Canceled):
		return Stopped
	default:
		return Transient
	}
}

// ExitCode is the process' exit status for err.
func ExitCode(err error) int {
	if errors.Is(err, ErrDrainTimeout) {
		return ExitDrainTimeout
	}
	switch Classify(err) {
	case Stopped:
		return ExitOK
	case Operator:
		return ExitOperator
	case Data:
		return ExitData
	case Usage:
		return ExitUsage
	case Bug:
		return ExitBug
	default:
		return ExitTransient
	}
}

// Severity says whether a Finding stops the stream.
type Severity int

// The severities.
const (
	OK      Severity = iota // looked at and fine
	Warning                 // works today; the fix avoids an incident
	Failure                 // must be fixed before streaming
)

// String names the severity as `outboxcdc check` prints it.
func (s Severity) String() string {
	switch s {
	case Warning:
		return "warning"
	case Failure:
		return "failure"
	default:
		return "ok"
	}
}

// Finding is one result of a preflight check.
type Finding struct {
	// Code names the finding for programs, such as slot.missing. It is stable and
	// empty where no program needs it.
	Code     string
	Severity Severity
	Subject  string // what was looked at: "publication outboxcdc"
	Problem  string // what was found, one sentence; for OK, what is fine
	Fix      string // the way out, a command where there is one; empty for OK
}

// Failures turns the findings that must be fixed into one operator error, or nil
// when there is none.
func Failures(findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Severity == Failure {
			errs = append(errs, NewOperator(fmt.Errorf("%s: %s", f.Subject, f.Problem), f.Fix))
		}
	}
	return errors.Join(errs...)
}
