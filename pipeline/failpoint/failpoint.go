// Package failpoint names the places of the chain at which a test may let the
// process die as a power cut would.
//
// It knows names and nothing else. In a binary that is built without the tag
// failpoints, which is every binary that is shipped, Pass is empty and the compiler
// leaves nothing of it. With the tag, OUTBOXCDC_FAILPOINT=after-save:7 makes the
// process kill itself with SIGKILL when it passes that point for the seventh time, and
// after-save:7:panic makes it panic there.
package failpoint

// Point is a place of the chain.
type Point string

// The points, in the order in which an event passes them.
const (
	AfterReceive Point = "after-receive" // a batch was read, and the ledger does not know it
	AfterSend    Point = "after-send"    // a batch was handed to the sink
	AfterAck     Point = "after-ack"     // the broker holds a batch, and the mark includes it
	AfterSave    Point = "after-save"    // a mark is durable, and the slot does not know it
	AfterConfirm Point = "after-confirm" // the stream was told, the server not yet
	StopFlushed  Point = "stop-flushed"  // a stop has waited for the last acks and not saved them
	StopSaved    Point = "stop-saved"    // a stop has saved all, and the connection has not said goodbye

	ParkKept     Point = "park-kept"     // rows are durable in the table of parked rows, and their dead letters are not sent
	RetryAcked   Point = "retry-acked"   // the broker holds parked rows, which are parked still
	RetrySettled Point = "retry-settled" // they are noted as sent, and their aggregate is parked still
	RetryRefused Point = "retry-refused" // a row that cannot be sent still is noted as such
	DropDone     Point = "drop-done"     // rows are noted as dropped, and the stream does not know it

	RecoverSlotGone Point = "recover-slot-gone" // a recovery has dropped the old slot
	RecoverSlotMade Point = "recover-slot-made" // it has made the new one, and sent nothing
	RecoverSent     Point = "recover-sent"      // the broker holds what was missing, and nothing is saved
	RecoverSaved    Point = "recover-saved"     // the new slot's position is saved
)
