package sink_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

func judge(tb testing.TB, s sink.Sink, msgs ...sink.Message) (int, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	return s.(sink.Judge).Judge(ctx, msgs)
}

// wantRefusal wants that the message at n is refused with a text, and none before it.
func wantRefusal(tb testing.TB, n int, err error, at int, text string) {
	tb.Helper()
	refusal, ok := errors.AsType[*sink.RefusalError](err)
	if !ok || n != at || !strings.Contains(err.Error(), text) || refusal.Topic == "" {
		tb.Errorf("message %d is refused with %v, want message %d with %q", n, err, at, text)
	}
}

func TestWhatSendWouldRefuseIsJudgedBeforeAndTheLineGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1)
		if err := fake.CreateTopic("small", 1, map[string]string{"max.message.bytes": "2000"}); err != nil {
			t.Fatal(err)
		}
		s := fake.open(t, fake.options())
		good := sink.Message{Topic: "small", Key: []byte("k"), Value: []byte("v")}
		large := good
		large.Value = bytes.Repeat([]byte("x"), 3000)
		n, err := judge(t, s, good, large)
		wantRefusal(t, n, err, 1, "larger than the 2000")
		n, err = judge(t, s, good, sink.Message{Topic: "a b", Key: []byte("k")})
		wantRefusal(t, n, err, 1, "character other than")
		n, err = judge(t, s, good, sink.Message{Topic: "absent", Key: []byte("k")})
		wantRefusal(t, n, err, 1, "topic absent does not exist")
		keyless := good
		keyless.Key = nil
		n, err = judge(t, s, keyless)
		wantRefusal(t, n, err, 0, "without a key")
		if n, err := judge(t, s, good, good); n != 2 || err != nil {
			t.Errorf("%d messages that fit are judged good, and then %v", n, err)
		}
		acked := make(chan error, 1)
		if err := s.Send(t.Context(), []sink.Message{good}, func(err error) { acked <- err }); err != nil {
			t.Fatalf("Send after refusals: %v", err)
		}
		if err := <-acked; err != nil {
			t.Errorf("the message behind those that were judged failed: %v", err)
		}
	})
}

func TestATopicThatWasRefusedIsAskedForAgainWhenItMayHaveBeenMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1)
		s := fake.open(t, fake.options())
		m := sink.Message{Topic: "late", Key: []byte("k"), Value: []byte("v")}
		n, err := judge(t, s, m)
		wantRefusal(t, n, err, 0, "topic late does not exist")
		began := time.Now()
		n, err = judge(t, s, m)
		wantRefusal(t, n, err, 0, "topic late does not exist")
		if waited := time.Since(began); waited > 0 {
			t.Errorf("a topic that was refused a moment ago took %v, want no question to the broker", waited)
		}
		if err := fake.CreateTopic("late", 1, nil); err != nil {
			t.Fatal(err)
		}
		s.(sink.Judge).Reconsider()
		if n, err := judge(t, s, m); n != 1 || err != nil {
			t.Errorf("a topic that was made meanwhile: %d, %v", n, err)
		}
	})
}

func TestARefusedBatchSaysThatItsMessagesMayBeToBlame(t *testing.T) {
	for code, ofMessages := range map[*kerr.Error]bool{
		kerr.InvalidRecord: true, kerr.PolicyViolation: true, kerr.MessageTooLarge: true, kerr.TopicAuthorizationFailed: true,
		kerr.OutOfOrderSequenceNumber: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := newFakeKafka(t, 1)
			if err := fake.CreateTopic("t", 1, nil); err != nil {
				t.Fatal(err)
			}
			s := fake.open(t, fake.options())
			fake.refuse("t", "k", code)
			acked := make(chan error, 1)
			if err := s.Send(t.Context(), []sink.Message{{Topic: "t", Key: []byte("k")}}, func(err error) { acked <- err }); err != nil {
				t.Fatal(err)
			}
			err := <-acked
			if _, ok := errors.AsType[*sink.RefusalError](err); ok != ofMessages || fault.Classify(err) != fault.Operator {
				t.Errorf("%v is acked with %v: a refusal %v, want %v, and the operator's where nobody looks for the message", code, err, ok, ofMessages)
			}
		})
	}
}
