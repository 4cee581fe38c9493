package pipeline

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// The record of a message that is alone begins before its Commit, which is its last
// byte: a slot that was confirmed there would never send the message again.
func TestABadMessageOutsideOfTransactionsIsNeverConfirmed(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		b := batchOf(0x1100, "good")
		b.Rows = append(b.Rows, wal.Row{Commit: 0x11FF, Alone: true, Table: 1, Columns: [][]byte{[]byte("no event")}})
		b.End = 0x1200
		x.batches <- b
		(<-x.sink.acks)(nil)
		close(x.sink.flush)
		if err := <-x.done; fault.Classify(err) != fault.Data || err == nil {
			t.Errorf("the session ended with %v, want a data error", err)
		}
		if x.at > 0x1100 {
			t.Errorf("confirmed %v, behind where the message begins", x.at)
		}
		if n := count(x.noted(), "send good"); n != 1 {
			t.Errorf("what came before it was sent %d times, want once", n)
		}
	})
}

// With --on-error skip a message that is no event passes as a row does.
func TestABadMessageCanBeSkippedAsARowCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAsideRun(t, "all")
		batch := batchOf(0x1100, "a", "b", "c")
		batch.Rows[1].Table, batch.Rows[1].Columns = 1, [][]byte{[]byte("no event")}
		alone := wal.Batch{Rows: []wal.Row{{Commit: 0x11FF, Alone: true, Table: 1, Columns: [][]byte{[]byte("s3cret")}}}, End: 0x1200}
		x.untilDone(t, []wal.Batch{batch, alone, batchOf(0x1300, "d")})
		if want := []string{"all a", "all c", "all d"}; !slices.Equal(x.broker.stored, want) {
			t.Errorf("the broker holds %q, want %q", x.broker.stored, want)
		}
		if log := x.log.String(); strings.Count(log, "row skipped") != 2 || !strings.Contains(log, "logical messages") || strings.Contains(log, "s3cret") {
			t.Errorf("the log does not tell of both messages, or shows what they hold:\n%s", log)
		}
		if x.saved != 0x1300 {
			t.Errorf("saved %v, want 0/1300", x.saved)
		}
	})
}
