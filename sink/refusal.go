package sink

import "context"

// RefusalError is why a broker does not take a message for what the message is, or for where
// it is to go: it is too large, its topic does not exist or is not ours to write to, a
// policy of the broker is against it. The next message may fare better, the same one will
// not until somebody has mended something. It wraps an error with class and way out, and
// shows nothing of the message but its topic.
//
// A broker that is asked for a whole batch refuses all of it. Then the message that is
// acked with it need not be the one that is to blame.
type RefusalError struct {
	Topic string
	Err   error
}

// Error is that of the cause.
func (r *RefusalError) Error() string { return r.Err.Error() }

// Unwrap gives the cause.
func (r *RefusalError) Unwrap() error { return r.Err }

// refuse makes a RefusalError of err.
func refuse(topic string, err error) error { return &RefusalError{Topic: topic, Err: err} }

// Judge is implemented by sinks that can tell before Send what Send would fail with. It
// is called by the goroutine that calls Send.
type Judge interface {
	// Judge gives how many of msgs Send would take, and why not the one behind them. The
	// error is a *RefusalError, or what ends the session. Like Send it may ask the broker
	// about topics that are named for the first time, for as long as ctx lasts.
	Judge(ctx context.Context, msgs []Message) (int, error)

	// Reconsider forgets what was refused, so that what somebody has mended meanwhile is
	// looked at anew.
	Reconsider()
}
