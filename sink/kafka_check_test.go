package sink_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// wantFinding fails unless there is one finding of the subject with code and severity,
// and a fix where one is needed.
func wantFinding(tb testing.TB, findings []fault.Finding, subject, code string, severity fault.Severity) {
	tb.Helper()
	i := slices.IndexFunc(findings, func(f fault.Finding) bool { return f.Subject == subject && f.Code == code })
	if i < 0 {
		tb.Errorf("no finding %s of %s in %+v", code, subject, findings)
		return
	}
	f := findings[i]
	if f.Severity != severity || f.Problem == "" || (f.Fix == "") != (severity == fault.OK) {
		tb.Errorf("finding %+v, want severity %v, a problem, and a fix unless it is fine", f, severity)
	}
}

func TestCheckFindsWhatMakesAnAckWorthLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 3, kfake.BrokerConfigs(map[string]string{"default.replication.factor": "3"}))
		for name, configs := range map[string]map[string]string{
			"fine":      {"min.insync.replicas": "2"},
			"one":       {"min.insync.replicas": "1"},
			"too-many":  {"min.insync.replicas": "4"},
			"small":     {"min.insync.replicas": "2", "max.message.bytes": "1000"},
			"forgetful": {"min.insync.replicas": "2", "unclean.leader.election.enable": "true"},
		} {
			if err := fake.CreateTopic(name, 2, configs); err != nil {
				t.Fatal(err)
			}
		}
		findings := sink.Check(t.Context(), fake.url(), fake.options("fine", "one", "too-many", "small", "forgetful", "absent"))
		wantFinding(t, findings, "kafka at localhost:9092, localhost:9093, localhost:9094", "kafka.reachable", fault.OK)
		wantFinding(t, findings, "topic fine", "topic.durable", fault.OK)
		wantFinding(t, findings, "topic one", "topic.min_insync_replicas", fault.Warning)
		wantFinding(t, findings, "topic too-many", "topic.min_insync_replicas", fault.Failure)
		wantFinding(t, findings, "topic small", "topic.max_message_bytes", fault.Warning)
		wantFinding(t, findings, "topic forgetful", "topic.unclean_leader_election", fault.Warning)
		wantFinding(t, findings, "topic absent", "topic.missing", fault.Failure)
		if len(findings) != 7 {
			t.Errorf("%d findings, want 7: %+v", len(findings), findings)
		}
		if fake.partitions("absent") != 0 {
			t.Error("Check made a topic")
		}
	})
}

func TestCheckMindsFewReplicasAndKnowsWhatWillBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		o := fake.options(topic, "absent")
		o.CreateTopics = true
		findings := sink.Check(t.Context(), fake.url(), o)
		wantFinding(t, findings, "topic "+topic, "topic.replication_factor", fault.Warning)
		wantFinding(t, findings, "topic absent", "topic.to_make", fault.OK)
		if fake.partitions("absent") != 0 {
			t.Error("Check made a topic")
		}
		if findings := sink.Check(t.Context(), fake.url(), fake.options()); len(findings) != 1 {
			t.Errorf("Check without topics finds %+v, want that the cluster answers", findings)
		}
	})
}

func TestCheckOfABrokerThatIsAwayIsAFailureInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		findings := sink.Check(t.Context(), "kafka://b1", sink.Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no such host")
		}})
		wantFinding(t, findings, "kafka at b1:9092", "kafka.unreachable", fault.Failure)
		if took := time.Since(start); took > 16*time.Second {
			t.Errorf("Check took %v", took)
		}
	})
}

func TestCheckOfStdoutFindsNothing(t *testing.T) {
	if findings := sink.Check(t.Context(), "stdout://", sink.Options{}); len(findings) != 0 {
		t.Errorf("found %+v", findings)
	}
}
