package pipeline

import (
	"fmt"
	"log/slog"
	"time"
)

// Trouble is something that a stream lives with for now and that somebody should look
// at: what it is about, the problem, and the way out, a sentence each.
type Trouble struct {
	Subject string `json:"subject"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

// What a Trouble is about.
const (
	TroubleBroker = "broker" // it takes no events: nothing flows
	TroubleSlot   = "slot"   // its log comes near the limit of the server
	TroubleParked = "parked" // rows wait aside, and with them what follows of their aggregates
)

// longestWait is how long the broker may take for an ack before events count as not
// flowing.
const longestWait = 15 * time.Second

// Troubles are those of a stream that streams; in any other state the Reason says what
// there is to say. They are told from what s holds and change nothing.
func (s *Stats) Troubles() []Trouble {
	if s.State != Streaming {
		return nil
	}
	var troubles []Trouble
	if problem := s.silence(); problem != "" {
		troubles = append(troubles, Trouble{
			TroubleBroker, problem,
			"nothing is lost, and Postgres keeps the log meanwhile; outboxcdc check says whether the brokers can be reached",
		})
	}
	if s.Slot.InDanger() {
		troubles = append(troubles, Trouble{
			TroubleSlot,
			fmt.Sprintf("%d MiB of log are kept for slot %s, and it is lost when %d MiB more are written",
				s.Slot.RetainedBytes>>20, s.Slot.Name, max(0, s.Slot.SafeBytes)>>20),
			"raise max_slot_wal_keep_size now, then see what holds the log: outboxcdc status names the oldest open transaction, outboxcdc bookmark list what was kept on purpose",
		})
	}
	if s.ParkedRows > 0 {
		troubles = append(troubles, Trouble{
			TroubleParked,
			fmt.Sprintf("rows that cannot be sent are parked: %d rows of %d aggregates, whose later events wait behind them", s.ParkedRows, s.ParkedAggregates),
			"outboxcdc dlq list says why each cannot be sent; mend that, then outboxcdc dlq retry sends them in order",
		})
	}
	return troubles
}

// silence is why events do not flow, or empty when they do.
func (s *Stats) silence() string {
	switch {
	case s.Stalled != "":
		return s.Stalled
	case s.Waiting <= longestWait:
		return ""
	case s.Unreached != "":
		return fmt.Sprintf("the broker has not acked for %v: %s", s.Waiting.Round(time.Second), s.Unreached)
	default:
		return fmt.Sprintf("the broker has not acked for %v", s.Waiting.Round(time.Second))
	}
}

// tell logs each trouble when it begins and when it is over. It belongs to the watch of
// the session that runs; told is what it told of before.
func (r *Runner) tell(told map[string]bool) {
	stats := r.Stats()
	now := map[string]bool{}
	for _, t := range stats.Troubles() {
		now[t.Subject] = true
		if !told[t.Subject] {
			told[t.Subject] = true
			r.logger.Warn("trouble", slog.String("subject", t.Subject), slog.String("problem", t.Problem), slog.String("fix", t.Fix))
		}
	}
	for subject := range told {
		if !now[subject] {
			delete(told, subject)
			r.logger.Info("trouble is over", slog.String("subject", subject))
		}
	}
}
