package verify

import (
	"fmt"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Kind is what an Example is an example of.
type Kind string

// The kinds of examples.
const (
	Missing    Kind = "missing"      // a row whose event must be on a topic and is not
	Altered    Kind = "altered"      // a row whose event is there, and is another
	Disordered Kind = "out of order" // a record behind a later event of its aggregate
	Unmappable Kind = "unmappable"   // a row that no event can be made of
	Duplicate  Kind = "duplicate"    // an event that is there again, with another position
	Foreign    Kind = "foreign"      // a record that outboxcdc did not write
	Unsettled  Kind = "unsettled"    // a row whose event is not there and may still come
	Expired    Kind = "expired"      // a row whose event is not there, where retention removes records
	Parked     Kind = "parked"       // a row that the stream has put aside, and its event is not there
	Dropped    Kind = "dropped"      // a row that was put aside and then dropped on request
)

// Example says where one finding is. It never holds a key or a payload.
type Example struct {
	Kind      Kind   `json:"kind"`
	Table     string `json:"table,omitempty"` // of a row
	Row       string `json:"row,omitempty"`   // its id
	Seq       int64  `json:"seq,omitempty"`   // where the table has one
	Topic     string `json:"topic,omitempty"` // of a record
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // -1 for a row
	Position  string `json:"position,omitempty"`

	identity digest // of a row whose id is still to be looked up
}

// maxExamples is how many of each kind a Report holds.
const maxExamples = 10

// Report is what a comparison found.
type Report struct {
	Rows    int64 `json:"rows"`    // of the table in the range
	Records int64 `json:"records"` // of the topics, what was read

	Present    int64 `json:"present"`      // rows whose event is there as the row says
	Missing    int64 `json:"missing"`      // and nothing can bring it any more
	Altered    int64 `json:"altered"`      // rows whose event has another topic, key, value or header
	Unmappable int64 `json:"unmappable"`   // rows that stop a stream
	Unsettled  int64 `json:"unsettled"`    // rows whose event is not there, and the slot is not past them
	Expired    int64 `json:"expired"`      // rows whose event is not there, and retention may have removed it
	Parked     int64 `json:"parked"`       // rows whose event is not there, because the stream has put them aside
	Dropped    int64 `json:"dropped"`      // rows whose event is not there, because somebody asked for that
	Disordered int64 `json:"out_of_order"` // first deliveries behind a later event of the aggregate

	Redelivered int64 `json:"redelivered"` // records of the same event and position: at least once
	Duplicates  int64 `json:"duplicates"`  // records of the same event at another position
	Foreign     int64 `json:"foreign"`     // records without our position
	Rowless     int64 `json:"rowless"`     // events whose row is not in the range, or was deleted

	Snapshot  string    `json:"snapshot"`  // the log up to here is compared
	Confirmed string    `json:"confirmed"` // and this is what the slot has confirmed; empty without a slot
	Notes     []string  `json:"notes"`     // what limits what can be known
	Examples  []Example `json:"examples"`
}

// Err is nil when every row's event is there, in order. It is an operator error when
// one is missing, altered or out of order, and a transient one when that cannot be
// told yet or depends on what becomes of parked rows.
func (r *Report) Err() error {
	switch {
	case r.Missing+r.Altered+r.Disordered+r.Unmappable > 0:
		return fault.NewOperator(
			fmt.Errorf("%d rows are missing on the topics, %d are altered, %d cannot be published and %d records are out of order",
				r.Missing, r.Altered, r.Unmappable, r.Disordered),
			"the examples say where; a missing event is sent again by inserting its row anew")
	case r.Unsettled > 0:
		return &fault.Error{
			Class:  fault.Transient,
			Err:    fmt.Errorf("%d rows are not on the topics, and the slot has not confirmed them either", r.Unsettled),
			Advice: "let the stream run until the slot is past " + r.Snapshot + ", and verify again",
		}
	case r.Parked > 0:
		return &fault.Error{
			Class:  fault.Transient,
			Err:    fmt.Errorf("%d rows are parked, and not on the topics", r.Parked),
			Advice: "`outboxcdc dlq list` says why; when that is mended, `outboxcdc dlq retry` sends them",
		}
	default:
		return nil
	}
}

// example keeps the first few of each kind.
func (r *Report) example(e Example) {
	n := 0
	for _, other := range r.Examples {
		if other.Kind == e.Kind {
			n++
		}
	}
	if n < maxExamples {
		r.Examples = append(r.Examples, e)
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}
