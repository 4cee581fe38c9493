package outbox

import (
	"time"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Format writes events: it gives a message its key, headers and value. What is the
// same in every format is decided around it: topic, partition, time, and the position.
type Format interface {
	// Columns are what the format reads of each table beside the columns of its
	// Mapping, or nil.
	Columns() []wal.Column

	// Reserved says whether a header's name is the format's own, so that neither a
	// column nor an entry of the headers column may have it.
	Reserved(header string) bool

	// Bind prepares for rows of one shape. It is called when the first row of that
	// shape comes, by the goroutine that maps; what it returns is used by that one
	// only. A table that cannot be written in this format is an operator error.
	Bind(source Source) (Encoder, error)
}

// Whole is a Format that decides what is decided around others as well: an event's key,
// topic, partition and time. An Encoder of it finds them empty in its Draft and must set
// a topic. An event may then have no key, and no place in any order.
type Whole interface {
	Format
	// Judge says why a table cannot be written in this format, as far as the catalog
	// shows it before any row. The error is an operator's.
	Judge(schema, table string, columns []wal.ColumnFacts) error
	// DescribeBy gives the format the means to ask the catalog. Bind calls it.
	DescribeBy(describe func(schema, table string) ([]wal.ColumnFacts, error))
}

// Encoder writes the events of one Source.
type Encoder interface {
	// Encode writes one event. It is called for every row, so it should allocate
	// nothing. An error is one of the row's and shows none of its values.
	Encode(d *Draft) error
}

// Source is a table whose rows are about to be mapped.
type Source struct {
	Table   wal.Table  // with all columns that a row carries, in their order; without a name for messages
	Shape   *wal.Shape // nil where the types are not known, as those of messages are
	Mapping Mapping    // as it was configured

	plan *tablePlan
}

// Role gives the place of a role's column among a row's columns; -1 when the table has
// none.
func (s Source) Role(role Role) int {
	for at, r := range Roles() {
		if r == role {
			return s.plan.roles[at]
		}
	}
	return -1
}

// name is the table's name for people.
func (s Source) name() string {
	if s.plan.messages {
		return "messages"
	}
	return s.Table.Schema + "." + s.Table.Name
}

// Column gives the place of a column among a row's columns; -1 when it is not read.
func (s Source) Column(name string) int { return columnIndex(s.Table.Columns, name) }

// Draft is an event on its way to a message. An Encoder finds key, value and time as
// the columns have them and may put others in their place.
//
// Memory: what an Encoder writes itself goes behind Text, by Keep. Values of columns
// are used as they are, without a copy: they live until the message is acked.
type Draft struct {
	// Row is where the event comes from. Its Columns are as Postgres sent them.
	Row *wal.Row
	// Columns are those of Row, with values of type bytea as the bytes they are, or the
	// members of a logical message.
	Columns [][]byte

	plan    *tablePlan
	topics  *topicNames // of a Whole format
	message sink.Message
	headers []sink.Header // of all messages of a call; growing moves what comes later
	text    []byte        // as well
	at      int           // where the headers of this message begin

	names map[string]string // of entries of headers columns, to make each once
}

// positionBytes is room for a position whose index has up to five digits.
const positionBytes = 16 + 1 + 5

// begin makes room for the messages of rows rows. These two pieces of memory are all
// that a call should allocate: what an event costs beyond, a backlog of millions pays.
func (d *Draft) begin(rows int) {
	d.headers = make([]sink.Header, 0, 4*rows)
	d.text = make([]byte, 0, positionBytes*rows)
}

// Topic is where the event goes.
func (d *Draft) Topic() string { return d.message.Topic }

// Key is the aggregate's id until SetKey.
func (d *Draft) Key() []byte { return d.message.Key }

// SetTopic sets where the event goes, when the topic may be sent to.
func (d *Draft) SetTopic(name string) error {
	topic, err := d.topics.approved(d.plan, name)
	d.message.Topic = topic
	return err
}

// SetPartition chooses the partition in the place of the key.
func (d *Draft) SetPartition(partition int32) {
	d.message.Partition, d.message.Placed = partition, true
}

// SetKey sets the message's key. Two events of one aggregate must get equal keys.
func (d *Draft) SetKey(key []byte) { d.message.Key = key }

// Value is the payload until SetValue; nil is null.
func (d *Draft) Value() []byte { return d.message.Value }

// SetValue sets the message's value; nil is a null value.
func (d *Draft) SetValue(value []byte) { d.message.Value = value }

// Time is the message's time.
func (d *Draft) Time() time.Time { return d.message.Time }

// SetTime sets the message's time.
func (d *Draft) SetTime(at time.Time) { d.message.Time = at }

// AddHeader adds a header behind those that were added.
func (d *Draft) AddHeader(key string, value []byte) {
	d.headers = append(d.headers, sink.Header{Key: key, Value: value})
}

// Text is memory to append to; what was appended becomes the message's by Keep.
func (d *Draft) Text() []byte { return d.text }

// Keep takes what Text gave, with something appended, and gives the appended piece,
// which lives as long as the message.
func (d *Draft) Keep(text []byte) []byte {
	at := len(d.text)
	d.text = text
	return text[at:len(text):len(text)]
}

// AddHeaderColumns adds the headers that the Mapping makes of columns, and then the
// entries of the headers column in their order, without those whose names are taken.
func (d *Draft) AddHeaderColumns() error {
	for i, at := range d.plan.headers {
		d.AddHeader(d.plan.headerNames[i], d.Columns[at])
	}
	if at := d.plan.roles[atHeaders]; at >= 0 && d.Columns[at] != nil {
		return d.addEntries(d.Columns[at])
	}
	return nil
}

func (d *Draft) finish() sink.Message {
	d.message.Headers = d.headers[d.at:len(d.headers):len(d.headers)]
	return d.message
}
