package sink_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/sinktest"
)

// terminal is the other end of a stdout sink.
type terminal struct {
	mu     sync.Mutex
	text   bytes.Buffer
	held   chan struct{} // nil, or closed when Write may go on
	refuse string        // fails the next Write that contains it
	writes int
}

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != nil {
		<-held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.refuse != "" && bytes.Contains(p, []byte(s.refuse)) {
		s.refuse = ""
		return 0, syscall.EPIPE
	}
	return s.text.Write(p)
}

func (s *terminal) hold() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(chan struct{})
	s.held = held
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = nil
		close(held)
	}
}

func (s *terminal) lines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// line is a line as another program reads it.
type line struct {
	Topic   string
	Key     *string
	Headers []struct {
		Key         string
		Value       *string
		ValueBase64 []byte `json:"value_base64"`
	}
	Time        time.Time
	Value       json.RawMessage
	KeyBase64   []byte `json:"key_base64"`
	ValueBase64 []byte `json:"value_base64"`
}

func (s *terminal) stored(tb testing.TB) []sink.Message {
	tb.Helper()
	var msgs []sink.Message
	d := json.NewDecoder(strings.NewReader(s.lines()))
	d.DisallowUnknownFields()
	for {
		var l line
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return msgs
		} else if err != nil {
			tb.Fatalf("read a line: %v", err)
		}
		msgs = append(msgs, l.message(tb))
	}
}

func (l *line) message(tb testing.TB) sink.Message {
	tb.Helper()
	m := sink.Message{Topic: l.Topic, Key: text(l.Key, l.KeyBase64), Time: l.Time}
	for _, h := range l.Headers {
		m.Headers = append(m.Headers, sink.Header{Key: h.Key, Value: text(h.Value, h.ValueBase64)})
	}
	var s *string
	if err := json.Unmarshal(l.Value, &s); err == nil || l.Value == nil {
		m.Value = text(s, l.ValueBase64)
	} else {
		m.Value = l.Value
	}
	return m
}

func text(s *string, encoded []byte) []byte {
	if s == nil {
		return encoded
	}
	return []byte(*s)
}

func TestStdoutIsASink(t *testing.T) {
	sinktest.RunInBubble(t, func(tb testing.TB) *sinktest.Harness {
		tb.Helper()
		out := new(terminal)
		return &sinktest.Harness{
			Sink:   sink.NewLines(out),
			Topic:  topic,
			Stored: out.stored,
			Hold:   func(testing.TB) func() { return out.hold() },
			Refuse: func(_ testing.TB, key string) {
				out.mu.Lock()
				defer out.mu.Unlock()
				out.refuse = key
			},
			BufferBytes: 4000,
		}
	})
}

func TestALineIsTheMessageAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))
	header := func(key, value string) []sink.Header { return []sink.Header{{Key: key, Value: []byte(value)}} }
	for want, m := range map[string]sink.Message{
		`{"topic":"t","key":"1","headers":[{"key":"id","value":"x"}],"time":"2026-01-02T02:04:05.000006Z","value":{"a": 1.50}}`: {Topic: "t", Key: []byte("1"), Headers: header("id", "x"), Time: at, Value: []byte(`{"a": 1.50}`)},
		`{"topic":"t","key":"1","headers":[],"time":"2026-01-02T02:04:05.000006Z","value":{"a":"x\ny","b":[1,2]}}`:              {Topic: "t", Key: []byte("1"), Time: at, Value: []byte("{\n \"a\": \"x\\ny\",\r\n \"b\": [1, 2]\n}")},
		`{"topic":"t","key":"1","headers":[],"time":"2026-01-02T02:04:05.000006Z","value":null}`:                                {Topic: "t", Key: []byte("1"), Time: at},
		`{"topic":"t","key":"<é>","headers":[],"time":"2026-01-02T02:04:05.000006Z","value":"no \"json\"\n"}`:                   {Topic: "t", Key: []byte("<é>"), Time: at, Value: []byte("no \"json\"\n")},
		`{"topic":"t","key_base64":"/wA=","headers":[{"key":"h","value_base64":"/g=="}],"time":"2026-01-02T02:04:05.000006Z","value_base64":"Iv8i"}`: {
			Topic: "t", Key: []byte("\xff\x00"), Headers: header("h", "\xfe"), Time: at, Value: []byte("\"\xff\""),
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			out := new(terminal)
			s := sink.NewLines(out)
			if err := s.Send(t.Context(), []sink.Message{m}, ignore); err != nil {
				t.Fatal(err)
			}
			flush(t, s)
			closeSink(t, s)
			if got := out.lines(); got != want+"\n" {
				t.Errorf("line\n%s, want\n%s", got, want)
			}
		})
	}
}

func TestASendIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(terminal)
		s := sink.NewLines(out)
		if err := s.Send(t.Context(), []sink.Message{message("a", 1), message("a", 2), message("b", 1)}, ignore); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		closeSink(t, s)
		if out.writes != 1 {
			t.Errorf("%d writes, want 1", out.writes)
		}
	})
}

func TestABrokenPipeIsAnOperatorErrorAndEndsTheOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{refuse: `"key":"a"`}
		s := sink.NewLines(out)
		var errs []error
		ack := func(err error) { errs = append(errs, err) }
		if err := s.Send(t.Context(), []sink.Message{message("a", 1), message("b", 1)}, ack); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		if len(errs) != 2 {
			t.Fatalf("%d acks, want 2", len(errs))
		}
		for _, err := range errs {
			wantClass(t, err, fault.Operator, "write to stdout", "broken pipe")
		}
		wantClass(t, s.Send(t.Context(), []sink.Message{message("b", 2)}, ack), fault.Operator)
		closeSink(t, s)
		if got := out.lines(); got != "" || len(errs) != 2 {
			t.Errorf("after the failure %q was written and %d acks came, want nothing more", got, len(errs)-2)
		}
	})
}

func TestNothingIsWrittenBehindAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{refuse: `"key":"a"`}
		resume := out.hold()
		s := sink.NewLines(out)
		failed := 0
		for _, key := range []string{"a", "b"} { // the second waits for the first
			if err := s.Send(t.Context(), []sink.Message{message(key, 1)}, func(err error) {
				failed++
				wantClass(t, err, fault.Operator)
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		resume()
		flush(t, s)
		synctest.Wait()
		closeSink(t, s)
		if out.lines() != "" || failed != 2 {
			t.Errorf("%d messages failed and %q was written, want 2 and nothing", failed, out.lines())
		}
	})
}

// The sheet that is being written, and the one that waits, are acked by Close; what
// the reader takes afterwards changes nothing.
func TestCloseDoesNotWaitForAReaderThatStoppedReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(terminal)
		resume := out.hold()
		s := sink.NewLines(out)
		acks := 0
		for n := range 2 {
			if err := s.Send(t.Context(), []sink.Message{message("a", n)}, func(err error) {
				acks++
				wantClass(t, err, fault.Transient, "closed")
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		within(t, 0, func() { closeSink(t, s) })
		if acks != 2 {
			t.Errorf("%d acks, want 2", acks)
		}
		resume()
		synctest.Wait()
		if acks != 2 || strings.Count(out.lines(), "\n") > 1 {
			t.Errorf("after Close %d acks came and the output is %q, want neither more acks nor the second line", acks-2, out.lines())
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add("t", []byte("k"), []byte(`{"a":1}`), "h", []byte("v"))
	f.Add("", []byte("\xff"), []byte("\n"), "\"", []byte(nil))
	f.Fuzz(func(t *testing.T, topic string, key, value []byte, name string, header []byte) {
		synctest.Test(t, func(t *testing.T) {
			out := new(terminal)
			s := sink.NewLines(out)
			m := sink.Message{Topic: topic, Key: key, Value: value, Headers: []sink.Header{{Key: name, Value: header}}, Time: time.Now()}
			if err := s.Send(t.Context(), []sink.Message{m}, ignore); err != nil {
				t.Fatal(err)
			}
			flush(t, s)
			closeSink(t, s)
			text := out.lines()
			if strings.Count(text, "\n") != 1 || !json.Valid([]byte(text)) {
				t.Errorf("%q is not one line of JSON", text)
			}
		})
	})
}
