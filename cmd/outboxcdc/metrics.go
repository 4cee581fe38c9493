package main

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// newMetrics serves what stats says at the moment of the scrape, and what Go says
// of the process.
func newMetrics(slot string, stats func() pipeline.Stats) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(slot, stats),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// collector turns Stats into metrics. It keeps nothing between two scrapes.
type collector struct {
	stats func() pipeline.Stats

	position, state                 *prometheus.Desc
	rows, bytes, sessions           *prometheus.Desc
	retained, safe                  *prometheus.Desc
	lastCommit, lastError, slotLook *prometheus.Desc
	unacked, inFlight, broken       *prometheus.Desc
	inFlightRows, lagBytes, lagAge  *prometheus.Desc
	topicMessages, topicBytes       *prometheus.Desc
	commitToAck, ackToConfirm       *prometheus.Desc
	skipped, parked, parkedKeys     *prometheus.Desc
	build                           *prometheus.Desc
}

func newCollector(slot string, stats func() pipeline.Stats) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("outboxcdc_"+name, help, labels, prometheus.Labels{"slot": slot})
	}
	return &collector{
		stats: stats,
		position: desc("position_bytes",
			"How far the stream is, as a position in the log: confirmed <= saved <= acked <= sent <= read. The difference of two is log between them.",
			"of"),
		state:      desc("state", "1 for the state that the stream is in.", "state"),
		rows:       desc("rows_total", "Rows sent since the process began, redeliveries included."),
		bytes:      desc("row_bytes_total", "Bytes of the columns of those rows."),
		parked:     desc("parked_rows", "Rows that could not be sent, or wait behind such a row of their aggregate, and are parked."),
		parkedKeys: desc("parked_aggregates", "Aggregates whose rows are parked."),
		skipped:    desc("skipped_rows_total", "Rows that could not be sent and were passed by --on-error=skip since the process began, redeliveries included."),
		sessions:   desc("sessions_total", "Sessions begun since the process began."),
		retained:   desc("slot_retained_bytes", "Log that the server keeps because of the slot, as last looked at."),
		safe: desc("slot_safe_bytes",
			"Log that may still be written before the slot is lost, as last looked at; absent when the server sets no limit."),
		slotLook:     desc("slot_look_timestamp_seconds", "When the slot was last looked at."),
		unacked:      desc("oldest_unacked_seconds", "For how long the oldest event that was sent is not acked; 0 when all are."),
		inFlight:     desc("in_flight_bytes", "Bytes of rows that are sent and not yet acked."),
		inFlightRows: desc("in_flight_rows", "Rows that are sent and not yet acked with all that came before them."),
		lagBytes:     desc("lag_bytes", "Log that the server has written and the slot has not confirmed, as last looked at; absent while nothing streams."),
		lagAge:       desc("lag_seconds", "Age since its commit of the oldest event on its way, 0 when all that was read is acked; absent while nothing streams."),
		topicMessages: desc("topic_messages_total",
			"Messages sent to a topic since the process began, redeliveries included. The first hundred topics are told apart; the rest is (others).", "topic"),
		topicBytes: desc("topic_bytes_total", "Bytes of the keys and values of those messages.", "topic"),
		broken:     desc("session_errors_total", "Sessions that ended with an error, by the class of what ended them.", "class"),
		commitToAck: desc("commit_to_ack_seconds",
			"From a row's commit, by the server's clock, to the broker's ack, by ours; of the oldest row of each batch."),
		ackToConfirm: desc("ack_to_confirm_seconds", "From the first ack that a save is for until the slot is told."),
		lastCommit:   desc("last_commit_timestamp_seconds", "Commit time of the latest row sent."),
		lastError:    desc("last_error_timestamp_seconds", "When a session last broke."),
		build:        desc("build_info", "1, with the version that runs.", "version", "go_version"),
	}
}

// Describe gives the metrics that there may be.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.position, c.state, c.rows, c.bytes, c.sessions, c.retained, c.safe, c.slotLook, c.lastCommit, c.lastError, c.build,
		c.unacked, c.inFlight, c.broken, c.commitToAck, c.ackToConfirm,
		c.inFlightRows, c.lagBytes, c.lagAge, c.topicMessages, c.topicBytes, c.skipped, c.parked, c.parkedKeys,
	} {
		out <- d
	}
}

// Collect gives what is known now; what is not known is absent rather than 0.
//
// A bug here fails the scrape and nothing else: metrics decide nothing.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	defer fault.Catch(func(bug error) { out <- prometheus.NewInvalidMetric(c.build, bug) })
	s := c.stats()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	c.positions(s, gauge)
	for _, state := range states() {
		gauge(c.state, oneIf(s.State == state), string(state))
	}
	counter(c.rows, s.Rows)
	counter(c.bytes, s.Bytes)
	counter(c.sessions, s.Sessions)
	counter(c.skipped, s.Skipped)
	gauge(c.parked, float64(s.ParkedRows))
	gauge(c.parkedKeys, float64(s.ParkedAggregates))
	gauge(c.unacked, s.Waiting.Seconds())
	gauge(c.inFlight, float64(s.InFlightBytes))
	gauge(c.inFlightRows, float64(s.InFlightRows))
	if log, age, ok := s.Lag(); ok {
		gauge(c.lagBytes, float64(log))
		gauge(c.lagAge, age.Seconds())
	}
	for _, topic := range s.Topics {
		name := topic.Topic
		if name == "" {
			name = "(others)" // an empty label is none; no topic is called so
		}
		counter(c.topicMessages, topic.Messages, name)
		counter(c.topicBytes, topic.Bytes, name)
	}
	for class, n := range s.Broken {
		counter(c.broken, n, class.String())
	}
	out <- histogramOf(c.commitToAck, s.CommitToAck)
	out <- histogramOf(c.ackToConfirm, s.AckToConfirm)
	if !s.SlotLookedAt.IsZero() {
		gauge(c.retained, float64(s.Slot.RetainedBytes))
		gauge(c.slotLook, seconds(s.SlotLookedAt))
		if s.Slot.SafeBytes >= 0 {
			gauge(c.safe, float64(s.Slot.SafeBytes))
		}
	}
	if !s.LastCommit.IsZero() {
		gauge(c.lastCommit, seconds(s.LastCommit))
	}
	if !s.LastErrorTime.IsZero() {
		gauge(c.lastError, seconds(s.LastErrorTime))
	}
	gauge(c.build, 1, version(), runtime.Version())
}

// positions gives the five positions once they are known. A float64 holds them
// exactly up to 8 PiB of log.
func (c *collector) positions(s pipeline.Stats, gauge func(*prometheus.Desc, float64, ...string)) {
	for _, p := range []struct {
		of string
		at wal.LSN
	}{{"read", s.Read}, {"sent", s.Sent}, {"acked", s.Acked}, {"saved", s.Saved}, {"confirmed", s.Confirmed}} {
		if p.at != 0 {
			gauge(c.position, float64(p.at), p.of)
		}
	}
}

// histogramOf is a latency in Prometheus' terms.
func histogramOf(desc *prometheus.Desc, l pipeline.Latency) prometheus.Metric {
	buckets := make(map[float64]uint64, len(l.Bounds))
	for i, bound := range l.Bounds {
		buckets[bound.Seconds()] = l.Counts[i]
	}
	return prometheus.MustNewConstHistogram(desc, l.Count, l.Sum.Seconds(), buckets)
}

func states() []pipeline.State {
	return []pipeline.State{
		pipeline.Starting, pipeline.Standby, pipeline.Streaming, pipeline.Retrying,
		pipeline.Draining, pipeline.Stopped, pipeline.Failed,
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
