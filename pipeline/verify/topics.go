package verify

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/sink"
)

// compareOnce reads what the topics hold by now and compares all of it.
func (r *run) compareOnce(ctx context.Context) error {
	if err := r.readTopics(ctx); err != nil {
		return err
	}
	return r.compare()
}

// readTopics reads the topics on to their ends.
func (r *run) readTopics(ctx context.Context) error {
	spans, absent, err := r.reader.Spans(ctx, slices.Sorted(maps.Keys(r.topics)), r.config.Since)
	if err != nil {
		return err
	}
	r.report.Notes = []string{}
	if r.denied {
		r.report.note("rows that are parked count as missing: the role may not read outboxcdc.parked")
	}
	for _, topic := range absent {
		r.report.note("topic %s does not exist", topic)
	}
	goal := r.report.Records
	for i := range spans {
		r.meet(&spans[i])
		goal += max(0, spans[i].End-spans[i].From)
	}
	return r.reader.Read(ctx, spans, func(record sink.Record) error {
		r.report.Records++
		if r.report.Records%progressEvery == 0 {
			r.config.Progress(Progress{Rows: r.report.Rows, Records: r.report.Records, Goal: goal})
		}
		return r.addRecord(&record)
	})
}

// part names a partition.
type part struct {
	topic  string
	number int32
}

// partition is what is remembered of one that is read.
type partition struct {
	topic uint16 // in run.names
	start int64  // the first offset that the broker has
	from  int64  // where reading began
	end   int64  // where it ended so far
	first *position
}

// meet prepares for a span, which goes on where an earlier one ended, and notes what
// the broker may have removed.
func (r *run) meet(s *sink.Span) {
	if s.Compacted {
		r.anything = true
		r.report.note("topic %s is compacted: earlier events of an aggregate may be gone", s.Topic)
	}
	p := r.parts[part{s.Topic, s.Partition}]
	if p == nil {
		number := slices.Index(r.names, s.Topic)
		if number < 0 {
			number = len(r.names)
			r.names = append(r.names, s.Topic)
		}
		p = &partition{topic: uint16(number), start: s.Start, from: s.From, end: s.From}
		r.parts[part{s.Topic, s.Partition}] = p
	}
	if p.trimmed() {
		r.report.note("retention has removed %d offsets of partition %d of topic %s", p.start, s.Partition, s.Topic)
		if s.From == s.End {
			r.horizon = time.Now().UnixMicro()
		}
	}
	s.From = max(p.end, s.Start)
	p.end = s.End
}

// trimmed says that retention has removed records which would have been read.
func (p *partition) trimmed() bool { return p.start > 0 && p.from == p.start }

// cut says that records in front of what is read are not known, and that at belongs
// to an event that was delivered among them: the stream has gone back there.
func (p *partition) cut(at position) bool {
	if p.first == nil {
		p.first = &at
	}
	return p.from > 0 && at.less(*p.first)
}

// addRecord takes the entries of a record. One without our position is not ours, and
// stands for no row.
func (r *run) addRecord(record *sink.Record) error {
	p := r.parts[part{record.Topic, record.Partition}]
	if p.trimmed() && record.Offset == p.start {
		// What retention has removed is not younger than what it has left.
		r.horizon = max(r.horizon, record.Time.UnixMicro())
	}
	text, ok := header(record.Headers, outbox.PositionHeader)
	at, err := parsePosition(text)
	if !ok || err != nil {
		r.report.Foreign++
		r.report.example(Example{Kind: Foreign, Topic: record.Topic, Partition: record.Partition, Offset: record.Offset})
		return nil //nolint:nilerr // what has no position of ours is no mistake but another's record
	}
	number := uint64(r.report.Records - 1)
	where := place{at: at, topic: p.topic, partition: record.Partition, offset: record.Offset}
	e := event{kind: kindRecord, number: number, place: where, content: r.hasher.message(&record.Message)}
	if id, ok := header(record.Headers, "id"); ok && id != nil {
		e.identity = r.identity(id)
	} else {
		e.identity = r.hasher.of([]byte("position"), text)
	}
	r.scratch = e.append(r.scratch[:0])
	if err := r.events.put(r.scratch); err != nil || p.cut(at) {
		return err
	}
	o := order{number: number, place: where}
	o.key = r.hasher.of([]byte(record.Topic), []byte(strconv.Itoa(int(record.Partition))), record.Key)
	r.scratch = o.append(r.scratch[:0])
	return r.orders.put(r.scratch)
}
