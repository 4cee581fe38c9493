package verify

// compare judges everything that was read, bucket by bucket.
func (r *run) compare() error {
	r.forget()
	var again bitmap // records that are not the first of their event
	for number := range buckets {
		if err := r.compareEvents(number, &again); err != nil {
			return err
		}
	}
	for number := range buckets {
		if err := r.compareOrder(number, &again); err != nil {
			return err
		}
	}
	return nil
}

// forget clears what an earlier comparison counted.
func (r *run) forget() {
	p := &r.report
	p.Present, p.Missing, p.Altered, p.Unsettled, p.Expired = 0, 0, 0, 0, 0
	p.Unmappable, p.Parked, p.Dropped = r.nameless, 0, 0
	p.Disordered, p.Redelivered, p.Duplicates, p.Rowless = 0, 0, 0, 0
	kept := []Example{}
	for _, e := range p.Examples {
		if e.Kind == Unmappable && e.identity == r.identity(nil) || e.Kind == Foreign {
			kept = append(kept, e)
		}
	}
	p.Examples = kept
}

// sighting is what is known of one event.
type sighting struct {
	row    *event // nil when no row of the range is this event's
	record bool
	same   bool     // the record says what the row says
	at     position // of the record
}

// compareEvents looks for the event of each row, and for records that are there
// again. Rows come first in each bucket, since they were read first.
func (r *run) compareEvents(number int, again *bitmap) error {
	seen := map[digest]*sighting{}
	err := r.events.each(number, func(entry []byte) {
		e := readEvent(entry)
		s := seen[e.identity]
		if s == nil {
			s = &sighting{}
			seen[e.identity] = s
		}
		if e.kind != kindRecord {
			s.row = &e
			return
		}
		r.see(s, &e, again)
	})
	if err != nil {
		return err
	}
	for _, s := range seen {
		r.judge(s)
	}
	return nil
}

// see takes a record of the event.
func (r *run) see(s *sighting, e *event, again *bitmap) {
	switch {
	case !s.record:
		s.record, s.at = true, e.at
		s.same = s.row != nil && s.row.content == e.content
	case s.at == e.at:
		r.report.Redelivered++
		again.set(e.number)
	default:
		r.report.Duplicates++
		r.report.example(r.recordExample(Duplicate, &e.place))
		again.set(e.number)
	}
}

// judge counts the event of a row, or a record without one.
func (r *run) judge(s *sighting) {
	switch {
	case s.row == nil:
		r.report.Rowless++
	case s.same:
		r.report.Present++
	case s.record && s.row.kind == kindRow:
		r.report.Altered++
		r.report.example(r.rowExample(Altered, s.row))
	case r.aside[s.row.identity] == Parked:
		r.report.Parked++
		r.report.example(r.rowExample(Parked, s.row))
	case r.aside[s.row.identity] == Dropped:
		r.report.Dropped++
		r.report.example(r.rowExample(Dropped, s.row))
	case s.row.kind == kindUnmappable:
		r.report.Unmappable++
		r.report.example(r.rowExample(Unmappable, s.row))
	case r.mayBeRemoved(s.row):
		r.report.Expired++
		r.report.example(r.rowExample(Expired, s.row))
	case !r.settled:
		r.report.Unsettled++
		r.report.example(r.rowExample(Unsettled, s.row))
	default:
		r.report.Missing++
		r.report.example(r.rowExample(Missing, s.row))
	}
}

// mayBeRemoved says whether the broker may have had the row's event and removed it.
// A row is created before its transaction commits, and its event carries the time of
// the commit.
func (r *run) mayBeRemoved(row *event) bool {
	return r.anything || row.offset <= r.horizon && r.horizon > 0
}

// compareOrder wants the first deliveries of each key in the order of the log.
func (r *run) compareOrder(number int, again *bitmap) error {
	highest := map[digest]position{}
	return r.orders.each(number, func(entry []byte) {
		o := readOrder(entry)
		if again.has(o.number) {
			return
		}
		if last, ok := highest[o.key]; ok && !last.less(o.at) {
			r.report.Disordered++
			r.report.example(r.recordExample(Disordered, &o.place))
			return
		}
		highest[o.key] = o.at
	})
}

func (r *run) rowExample(kind Kind, row *event) Example {
	table := r.config.Wal.Tables[row.topic]
	return Example{Kind: kind, Table: table.Schema + "." + table.Name, Seq: int64(row.number), Offset: -1, identity: row.identity}
}

func (r *run) recordExample(kind Kind, at *place) Example {
	return Example{Kind: kind, Topic: r.names[at.topic], Partition: at.partition, Offset: at.offset, Position: at.at.String()}
}
