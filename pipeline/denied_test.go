package pipeline

import (
	"errors"
	"fmt"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestALoginThatIsRefusedAfterOneThatWasNotIsTriedAFewTimes(t *testing.T) {
	refused := fault.NewOperator(fmt.Errorf("connect: %w", wal.ErrDenied), "check the password")
	other := fault.NewOperator(errors.New("the slot is gone"), "look for it")
	r := &Runner{}
	if r.passes(refused) {
		t.Error("a first login that is refused is tried again, want an end")
	}
	r.streamed, r.denied = true, 0 // as attempt does
	for try := range deniedTries {
		if !r.passes(refused) {
			t.Fatalf("refused at try %d of a stream that was let in before, and that is the end", try+1)
		}
	}
	if r.passes(refused) {
		t.Errorf("refused %d times in a row, and still tried again", deniedTries+1)
	}
	if r.passes(other) {
		t.Error("another operator error is tried again")
	}
}
