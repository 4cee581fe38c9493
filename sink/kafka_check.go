package sink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// check looks at the cluster and at the topics that are known. An ack means that
// every in-sync replica holds the message; what that is worth is for the topic's
// settings to say.
func (s *kafkaSettings) check(ctx context.Context, o Options) []fault.Finding {
	var findings []fault.Finding
	if s.security.clear() {
		findings = append(findings, fault.Finding{
			Code: "kafka.clear_password", Severity: fault.Warning, Subject: s.subject(),
			Problem: "the password is sent over connections that are not encrypted",
			Fix:     "use security.protocol=SASL_SSL, or a SCRAM mechanism",
		})
	}
	k, dialer, err := s.connect(o)
	if err != nil {
		return append(findings, findingOf("kafka.settings", s.subject(), err))
	}
	defer k.client.Close()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	seen, err := look(ctx, k.client, o.Topics)
	if err != nil {
		return append(findings, findingOf("kafka.unreachable", s.subject(), s.openError(ctx, err, &dialer.last)))
	}
	findings = append(findings, fault.Finding{
		Code: "kafka.reachable", Severity: fault.OK, Subject: s.subject(), Problem: seen.brokers(),
	})
	for i := range seen.metadata.Topics {
		t := topicLook{topic: &seen.metadata.Topics[i], maxRequest: s.maxRequest, create: o.CreateTopics}
		t.name = *t.topic.Topic
		t.configs = seen.configs[t.name]
		findings = append(findings, t.findings()...)
	}
	return findings
}

func (s *kafkaSettings) subject() string { return "kafka at " + strings.Join(s.brokers, ", ") }

// clusterLook is what a cluster says of itself.
type clusterLook struct {
	metadata *kmsg.MetadataResponse
	configs  map[string]map[string]string
}

func look(ctx context.Context, client *kgo.Client, topics []string) (*clusterLook, error) {
	if err := client.Ping(ctx); err != nil {
		return nil, err
	}
	if err := becomeProducer(ctx, client); err != nil {
		return nil, err
	}
	answer, err := metadata(ctx, client, topics)
	if err != nil {
		return nil, err
	}
	seen := &clusterLook{metadata: answer}
	if len(topics) > 0 {
		seen.configs, err = topicConfigs(ctx, client, topics)
	}
	return seen, err
}

func (c *clusterLook) brokers() string {
	cluster := "without an id"
	if c.metadata.ClusterID != nil {
		cluster = *c.metadata.ClusterID
	}
	return fmt.Sprintf("cluster %s answers with %d brokers and lets us produce", cluster, len(c.metadata.Brokers))
}

// topicLook is what is known of one topic.
type topicLook struct {
	name       string
	topic      *kmsg.MetadataResponseTopic
	configs    map[string]string // empty when we may not see them
	maxRequest int32
	create     bool
}

func (t *topicLook) finding(code string, severity fault.Severity, problem, fix string) fault.Finding {
	return fault.Finding{Code: "topic." + code, Severity: severity, Subject: "topic " + t.name, Problem: problem, Fix: fix}
}

// findings is all that is wrong with the topic, or that it is fine.
func (t *topicLook) findings() []fault.Finding {
	if f, absent := t.absent(); absent {
		return []fault.Finding{f}
	}
	var findings []fault.Finding
	for _, look := range []func() (fault.Finding, bool){t.unwritable, t.replicas, t.inSync, t.unclean, t.size, t.hidden} {
		if f, found := look(); found {
			findings = append(findings, f)
		}
	}
	if len(findings) == 0 {
		findings = append(findings, t.finding("durable", fault.OK,
			fmt.Sprintf("%d partitions with %d replicas each", len(t.topic.Partitions), t.replication()), ""))
	}
	return findings
}

func (t *topicLook) absent() (fault.Finding, bool) {
	_, err := topicState(t.topic)
	switch {
	case err == nil:
		return fault.Finding{}, false
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		f := findingOf("topic.unusable", "topic "+t.name, err)
		return f, true
	case t.create:
		return t.finding("to_make", fault.OK, "it does not exist and will be made", ""), true
	default:
		return t.finding("missing", fault.Failure, "it does not exist", createAdvice(t.name)), true
	}
}

// mayWrite reads the operations that a broker since 2.3 says we may do on a topic.
func mayWrite(allowed int32) bool {
	const notTold = -1 << 31
	return allowed == notTold || allowed&(1<<kmsg.ACLOperationWrite|1<<kmsg.ACLOperationAll) != 0
}

func (t *topicLook) unwritable() (fault.Finding, bool) {
	if mayWrite(t.topic.AuthorizedOperations) {
		return fault.Finding{}, false
	}
	return t.finding("unauthorized", fault.Failure, "we may not write to it",
		"kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation Write --operation Describe --topic "+t.name), true
}

func (t *topicLook) replication() int {
	replicas := len(t.topic.Partitions[0].Replicas)
	for _, p := range t.topic.Partitions {
		replicas = min(replicas, len(p.Replicas))
	}
	return replicas
}

func (t *topicLook) replicas() (fault.Finding, bool) {
	const wanted = 3
	if n := t.replication(); n < wanted {
		return t.finding("replication_factor", fault.Warning,
			fmt.Sprintf("a partition has %d replicas; the loss of that many disks loses events that Postgres has forgotten", n),
			"raise the replication factor to 3 with kafka-reassign-partitions.sh"), true
	}
	return fault.Finding{}, false
}

func (t *topicLook) inSync() (fault.Finding, bool) {
	least, err := strconv.Atoi(t.configs["min.insync.replicas"])
	switch n := t.replication(); {
	case err != nil:
		return fault.Finding{}, false
	case least > n:
		return t.finding("min_insync_replicas", fault.Failure,
			fmt.Sprintf("min.insync.replicas is %d, but a partition has %d replicas: it takes nothing", least, n),
			t.alter("min.insync.replicas=2")+", or add replicas"), true
	case least < 2:
		return t.finding("min_insync_replicas", fault.Warning,
			"min.insync.replicas is 1: with one replica in sync an acknowledged event is on one disk only",
			t.alter("min.insync.replicas=2")), true
	default:
		return fault.Finding{}, false
	}
}

func (t *topicLook) unclean() (fault.Finding, bool) {
	if t.configs["unclean.leader.election.enable"] != "true" {
		return fault.Finding{}, false
	}
	return t.finding("unclean_leader_election", fault.Warning,
		"unclean.leader.election.enable is true: a replica that lacks acknowledged events may become the leader",
		t.alter("unclean.leader.election.enable=false")), true
}

func (t *topicLook) size() (fault.Finding, bool) {
	bytes, err := strconv.ParseInt(t.configs["max.message.bytes"], 10, 32)
	if err != nil || bytes >= int64(t.maxRequest) {
		return fault.Finding{}, false
	}
	return t.finding("max_message_bytes", fault.Warning,
		fmt.Sprintf("it takes events of up to %d bytes, less than the %d of max.request.size", bytes, t.maxRequest),
		t.alter(fmt.Sprintf("max.message.bytes=%d", t.maxRequest))+" when events may be that large"), true
}

func (t *topicLook) hidden() (fault.Finding, bool) {
	if len(t.configs) > 0 {
		return fault.Finding{}, false
	}
	return t.finding("configuration_hidden", fault.Warning,
		"we may not see its configuration, so nobody checks that an acknowledged event is safe",
		"kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation DescribeConfigs --topic "+t.name), true
}

func (t *topicLook) alter(config string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server … --alter --topic %s --add-config %s", t.name, config)
}
