package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The columns of the table that init makes, by their place.
const (
	aggregateType = 2
	aggregateID   = 3
	payload       = 5
	columns       = 9
)

// producer sends rows.
type producer struct {
	client  *kgo.Client
	topics  map[string]string // by aggregate type
	form    string
	failed  atomic.Pointer[error]
	promise func(*kgo.Record, error) // settle, bound once
	text    []byte                   // room for rows to come
	records []kgo.Record             // the same
}

// Rows come from pieces of memory of this size, which the garbage collector takes back
// when the last of them is acked.
const (
	textPiece   = 64 << 10
	recordPiece = 256
)

// newProducer has the settings of outboxcdc's sink (sink/kafka.go): acks of all, the
// idempotent producer, snappy, batches of a megabyte, Java's partitioner, 16 MiB of
// rows in flight. A change there is a change here, or the two do not compare. The sink's linger,
// which holds on a busy log only, is left out unless linger says so.
func newProducer(brokers []string, form string, linger time.Duration) (*producer, error) {
	p := &producer{form: form, topics: map[string]string{}}
	p.promise = p.settle
	var err error
	p.client, err = kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerBatchMaxBytes(1<<20),
		kgo.MaxBufferedBytes(16<<20),
		kgo.MaxBufferedRecords(16<<20),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	)
	return p, err
}

// send copies the row once and hands it over.
func (p *producer) send(row [][]byte) {
	if len(p.records) == 0 {
		p.records = make([]kgo.Record, recordPiece)
	}
	r := &p.records[0]
	p.records = p.records[1:]
	r.Topic, r.Key, r.Value = p.topic(row[aggregateType]), p.copied(row[aggregateID]), p.copied(row[payload])
	p.client.Produce(context.Background(), r, p.promise)
}

func (p *producer) copied(column []byte) []byte {
	n := len(column)
	if len(p.text) < n {
		p.text = make([]byte, max(textPiece, n))
	}
	copied := p.text[:n:n]
	copy(copied, column)
	p.text = p.text[n:]
	return copied
}

func (p *producer) settle(_ *kgo.Record, err error) {
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
}

func (p *producer) topic(kind []byte) string {
	if name, ok := p.topics[string(kind)]; ok {
		return name
	}
	name := strings.ReplaceAll(p.form, "{aggregate_type}", string(kind))
	p.topics[string(kind)] = name
	return name
}

// loop is the whole program.
type loop struct {
	*reader
	*producer
	coalesce bool

	rows    int64
	mallocs uint64 // when the first row came
	row     [columns][]byte
}

var errEnded = errors.New("the server ended the stream")

// run reads until ctx ends, of which it looks once a second at the least.
func (l *loop) run(ctx context.Context) error {
	said := time.Now()
	for {
		if err := l.take(); err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(said) >= statusPause {
			said = now
			if err := l.status(); err != nil {
				return err
			}
		}
		if err := l.read(now); err != nil {
			return err
		}
		if err := l.failed.Load(); err != nil {
			return *err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// read reads once. Nothing for a second is no error.
func (l *loop) read(now time.Time) error {
	err := l.conn.SetReadDeadline(now.Add(time.Second))
	switch {
	case err != nil:
		return err
	case l.coalesce:
		err = l.fillCoalesced()
	default:
		err = l.fill()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// take sends every row that is in the buffer.
func (l *loop) take() error {
	for {
		kind, body, ok := l.next()
		switch {
		case !ok:
			return nil
		case kind != 'd':
			return errEnded
		case len(body) > 25+8 && body[0] == 'w' && body[25] == 'I':
			l.insert(body[25:])
		}
	}
}

// insert takes an Insert message of pgoutput: the table's oid and N between two bytes
// of kind, then the columns.
func (l *loop) insert(message []byte) {
	if l.rows == 0 {
		l.mallocs = mallocs()
	}
	l.rows++
	count := min(int(binary.BigEndian.Uint16(message[6:])), columns)
	rest := message[8:]
	for i := range count {
		l.row[i] = nil
		kind := rest[0]
		rest = rest[1:]
		if kind != 't' {
			continue
		}
		size := binary.BigEndian.Uint32(rest)
		l.row[i] = rest[4 : 4+size]
		rest = rest[4+size:]
	}
	l.send(l.row[:])
}
