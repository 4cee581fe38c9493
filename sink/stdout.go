package sink

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func init() {
	register("stdout", kind{example: "stdout://", parse: parseStdout})
}

// stdoutTarget is a stdout:// URL, which says all by its scheme.
type stdoutTarget struct{}

func parseStdout(address, query string) (target, error) {
	if address != "" || query != "" {
		return nil, badURL("nothing stands behind stdout://")
	}
	return stdoutTarget{}, nil
}

func (stdoutTarget) open(context.Context, Options) (Sink, error) { return newLines(os.Stdout), nil }

// lines is the sink that writes each message as a line of JSON, for people and for
// other programs:
//
//	{"topic":"…","key":"…","headers":[{"key":"…","value":"…"}],"time":"…","value":{…}}
//
// A value that is JSON stands there as it is, in one line, any other as a string; null
// is null. What is not UTF-8 stands under key_base64 or value_base64.
//
// A Send's lines are written with one call and then acked: they are with the
// operating system, which is all that a pipe can promise. After a failed write
// nothing more is written, as half a line may be out.
//
// One goroutine, write, does the writing, so that Send and Close do not hang with a
// reader that has stopped reading. It ends with Close, or when the call of Write ends
// that it is in.
type lines struct {
	to     io.Writer
	sheets chan *sheet   // what write is to write; holds one
	done   chan struct{} // closed by Close
	once   sync.Once

	mu     sync.Mutex
	open   []*sheet      // nobody has begun to ack them; in order
	unsure int           // sheets whose last ack has not returned
	empty  chan struct{} // closed when unsure is 0; nil while nobody waits
	failed error         // why nothing more is written
	spare  []byte        // a buffer that is not in use
}

// sheet is what one Send gave to write.
type sheet struct {
	text     []byte
	messages int
	ack      Ack
}

var errStdoutClosed = errors.New("the sink was closed before the line was written")

func newLines(to io.Writer) *lines {
	l := &lines{to: to, sheets: make(chan *sheet, 1), done: make(chan struct{})}
	go l.write()
	return l
}

// Send encodes msgs, which it does not touch afterwards, and waits until there is
// room: one sheet is being written, and one waits.
func (l *lines) Send(ctx context.Context, msgs []Message, ack Ack) error {
	s, err := l.enter(msgs, ack)
	if err != nil {
		return err
	}
	select {
	case l.sheets <- s:
		return nil
	case <-ctx.Done():
		l.withdraw(s)
		return ctx.Err()
	}
}

// enter makes a sheet and counts it among those that are not acked.
func (l *lines) enter(msgs []Message, ack Ack) (*sheet, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, l.failed
	}
	text := l.spare[:0]
	l.spare = nil
	for i := range msgs {
		text = appendLine(text, &msgs[i])
	}
	s := &sheet{text: text, messages: len(msgs), ack: ack}
	l.open = append(l.open, s)
	l.unsure++
	return s, nil
}

// withdraw takes back a sheet that write was never given. When the sink has failed
// meanwhile it is acked already.
func (l *lines) withdraw(s *sheet) {
	if l.claim(s) {
		l.acked()
	}
}

// claim is true for the one who may ack s.
func (l *lines) claim(s *sheet) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.open, s)
	if i < 0 {
		return false
	}
	l.open = slices.Delete(l.open, i, i+1)
	return true
}

// settle acks a sheet that its caller has claimed.
func (l *lines) settle(s *sheet, err error) {
	for range s.messages {
		s.ack(err)
	}
	l.acked()
}

func (l *lines) acked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure--
	if l.unsure == 0 && l.empty != nil {
		close(l.empty)
		l.empty = nil
	}
}

// Flush waits until each sheet is acked.
func (l *lines) Flush(ctx context.Context) error {
	l.mu.Lock()
	if l.unsure > 0 && l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty, unsure := l.empty, l.unsure
	l.mu.Unlock()
	if unsure == 0 {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", ctx.Err())
	}
}

// Close acks with an error what is not written, and leaves a Write that hangs alone.
func (l *lines) Close() error {
	l.once.Do(func() { close(l.done) })
	l.fail(errStdoutClosed)
	return l.Flush(context.Background()) // of sheets that are being acked, which never blocks
}

func (l *lines) write() {
	defer fault.Catch(l.fail)
	for {
		select {
		case <-l.done:
			return
		case s := <-l.sheets:
			l.writeOne(s)
		}
	}
}

func (l *lines) writeOne(s *sheet) {
	l.mu.Lock()
	failed := l.failed != nil // then s is acked already
	l.mu.Unlock()
	if failed {
		return
	}
	if _, err := l.to.Write(s.text); err != nil {
		l.fail(fault.NewOperator(fmt.Errorf("write to stdout: %w", err), "see what became of the program that reads the other end"))
		return
	}
	if l.claim(s) { // Close may have been faster
		l.settle(s, nil)
		l.mu.Lock()
		l.spare = s.text
		l.mu.Unlock()
	}
}

// fail ends the sink: all that is open is acked with err, or with what came before it.
func (l *lines) fail(err error) {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	err = l.failed
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for _, s := range open {
		l.settle(s, err)
	}
}

func appendLine(b []byte, m *Message) []byte {
	b = append(b, `{"topic":`...)
	b = appendString(b, m.Topic)
	b = appendText(append(b, ','), "key", m.Key)
	b = append(b, `,"headers":[`...)
	for i, h := range m.Headers {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"key":`...)
		b = appendString(b, h.Key)
		b = appendText(append(b, ','), "value", h.Value)
		b = append(b, '}')
	}
	b = append(b, `],"time":`...)
	b = appendString(b, m.Time.UTC().Format(time.RFC3339Nano))
	b = appendValue(append(b, ','), m.Value)
	return append(b, '}', '\n')
}

// appendText is a member with text, or with base64 where it is none.
func appendText(b []byte, name string, text []byte) []byte {
	b = append(b, '"')
	b = append(b, name...)
	switch {
	case text == nil:
		return append(b, `":null`...)
	case !utf8.Valid(text):
		b = append(b, `_base64":"`...)
		return append(base64.StdEncoding.AppendEncode(b, text), '"')
	default:
		return appendString(append(b, `":`...), string(text))
	}
}

func appendValue(b, value []byte) []byte {
	if !utf8.Valid(value) || !json.Valid(value) {
		return appendText(b, "value", value)
	}
	b = append(b, `"value":`...)
	if !bytes.ContainsAny(value, "\n\r") {
		return append(b, value...)
	}
	compact := bytes.NewBuffer(b)
	json.Compact(compact, value) //nolint:errcheck // it is valid
	return compact.Bytes()
}

func appendString(b []byte, s string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	e.Encode(s) //nolint:errcheck // a string always can be
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}
