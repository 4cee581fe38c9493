package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say where a stream stands",
		Description: `Says how far the stream is, how many rows wait, how much log the server keeps for the
slot and how much more it may, who streams, which transaction holds the log, and
whether a stream may begin. It changes nothing and may run beside a stream. It exits
with 3 when something must be mended.

Counting the rows that wait reads the outbox tables, for five seconds at the most.

Examples:

   outboxcdc status --slot orders
   outboxcdc status --slot orders --watch
   outboxcdc status --slot orders --json

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), []cli.Flag{
			checkpointFlag(),
			&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print JSON"},
			&cli.BoolFlag{Name: "watch", EnvVars: []string{twin("watch")}, Usage: "look again every two seconds, until a signal"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.status,
	}
}

// watchPause is between two looks of status --watch.
const watchPause = 2 * time.Second

func (p *program) status(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := positionConfig(c)
	config.Logger = logger
	if err := errors.Join(flagErr, logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	show := printStatus
	if c.Bool("json") {
		show = printStatusJSON
	}
	for {
		s, err := pipeline.LookAtStatus(ctx, config)
		if err != nil {
			return interrupted(ctx, err)
		}
		if err := show(p.out, s); err != nil {
			return err
		}
		if !c.Bool("watch") {
			return statusError(s)
		}
		if !pauseFor(ctx, watchPause) {
			return nil // the operator has seen enough
		}
	}
}

// pauseFor is false when ctx ended first.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// statusError is what a status ends with when something must be mended. What that is
// has been printed.
func statusError(s pipeline.Status) error {
	if s.Verdict.Begins() {
		return nil
	}
	return fault.NewOperator(fmt.Errorf("the stream cannot begin: %s", s.Verdict.Kind), s.Verdict.Advice)
}

// printStatus prints a line for each thing to know.
func printStatus(out io.Writer, s pipeline.Status) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("slot", "%s", slotLine(s))
	line("verdict", "%s: %s", s.Verdict.Kind, s.Verdict.Sentence)
	if s.Verdict.Advice != "" {
		line("", "fix: %s", s.Verdict.Advice)
	}
	line("confirmed", "%s", positionOr(s.Confirmed, "nothing"))
	line("saved", "%s", savedLine(s))
	line("end of log", "%v, %s further", s.End, bytesOf(s.LagBytes))
	for _, t := range s.Tables {
		line("rows", "%s", rowsLine(t))
	}
	if s.Messages != "" {
		line("messages", "with prefix %s: unknown how many wait, since they are in no table; peek shows them", s.Messages)
	}
	if s.LagAge > 0 {
		line("oldest row", "waits for %v", s.LagAge.Round(time.Second))
	}
	if s.Parked.Rows > 0 {
		line("parked", "%d rows of %d aggregates; see outboxcdc dlq", s.Parked.Rows, s.Parked.Aggregates)
	}
	line("log kept", "%s", keptLine(s))
	if t := s.Server.Oldest; t != nil {
		line("open", "%s", transactionLine(*t))
	}
	for i := range s.Gaps {
		g := &s.Gaps[i]
		line("gap", "from %v to %v was accepted: %s", g.From, g.To, g.Reason)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(out, b.String())
	return err
}

func slotLine(s pipeline.Status) string {
	switch {
	case !s.Exists:
		return s.Slot + ", which does not exist"
	case s.Server.Holder == "":
		return s.Slot + ", nobody streams from it; a stream that ended has said why in its log, and check and peek look for the cause"
	default:
		return s.Slot + ", held by " + s.Server.Holder
	}
}

func positionOr(lsn wal.LSN, none string) string {
	if lsn == 0 {
		return none
	}
	return lsn.String()
}

func savedLine(s pipeline.Status) string {
	if s.Saved == 0 {
		return "nothing"
	}
	text := fmt.Sprintf("%v at %s", s.Saved, s.SavedAt.UTC().Format(time.RFC3339))
	if !s.Delivered.Known() {
		return text + ", without a snapshot"
	}
	return fmt.Sprintf("%s, with a snapshot of %v at %s", text, s.Delivered.At, s.Delivered.Time.UTC().Format(time.RFC3339))
}

func rowsLine(t pipeline.TableStatus) string {
	if t.Rows < 0 {
		return fmt.Sprintf("%s: unknown how many wait: %s", t.Table, t.Problem)
	}
	return fmt.Sprintf("%s: %d wait", t.Table, t.Rows)
}

func keptLine(s pipeline.Status) string {
	text := bytesOf(s.RetainedBytes)
	if s.Server.KeepBytes < 0 {
		return text + ", without a limit (max_slot_wal_keep_size)"
	}
	text += " of " + bytesOf(s.Server.KeepBytes) + " (max_slot_wal_keep_size)"
	if s.SafeBytes >= 0 {
		text += ", lost when " + bytesOf(s.SafeBytes) + " more are written"
	}
	return text
}

func transactionLine(t wal.Transaction) string {
	if t.Prepared != "" {
		return fmt.Sprintf("transaction %q in database %s is prepared for %v and holds the log", t.Prepared, t.Database, t.Age)
	}
	return fmt.Sprintf("pid %d (%s) in database %s, %s, has a transaction open for %v, which holds the log",
		t.PID, t.Application, t.Database, t.State, t.Age)
}

// bytesOf is a size for people.
func bytesOf(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

// statusForm is the JSON form of a pipeline.Status. What is not known is null.
type statusForm struct {
	Slot            string      `json:"slot"`
	Exists          bool        `json:"exists"`
	Holder          string      `json:"holder,omitempty"`
	Verdict         verdictForm `json:"verdict"`
	Confirmed       *string     `json:"confirmed"`
	Saved           *string     `json:"saved"`
	SavedAt         *time.Time  `json:"saved_at"`
	Delivered       *string     `json:"delivered"`
	DeliveredAt     *time.Time  `json:"delivered_at"`
	End             string      `json:"end"`
	LagBytes        int64       `json:"lag_bytes"`
	LagSeconds      float64     `json:"lag_seconds"`
	Tables          []tableForm `json:"tables"`
	ParkedRows      int         `json:"parked_rows"`
	ParkedKeys      int         `json:"parked_aggregates"`
	RetainedBytes   int64       `json:"retained_bytes"`
	KeepBytes       *int64      `json:"keep_bytes"`
	SafeBytes       *int64      `json:"safe_bytes"`
	OpenTransaction *openForm   `json:"open_transaction"`
	AcceptedGaps    []gapForm   `json:"accepted_gaps"`
}

type verdictForm struct {
	Kind     string `json:"kind"`
	Begins   bool   `json:"begins"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Sentence string `json:"sentence"`
	Advice   string `json:"advice,omitempty"`
}

type tableForm struct {
	Table   string `json:"table"`
	Pending *int64 `json:"pending_rows"`
	Problem string `json:"problem,omitempty"`
}

type openForm struct {
	PID         int32   `json:"pid"`
	Prepared    string  `json:"prepared,omitempty"`
	Application string  `json:"application_name"`
	Database    string  `json:"database"`
	State       string  `json:"state"`
	Seconds     float64 `json:"seconds"`
}

type gapForm struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

func printStatusJSON(out io.Writer, s pipeline.Status) error {
	form := statusForm{
		Slot: s.Slot, Exists: s.Exists, Holder: s.Server.Holder,
		Verdict: verdictForm{
			Kind: string(s.Verdict.Kind), Begins: s.Verdict.Begins(), From: positionOr(s.Verdict.From, ""), To: positionOr(s.Verdict.To, ""),
			Sentence: s.Verdict.Sentence, Advice: s.Verdict.Advice,
		},
		Confirmed: orNull(s.Confirmed.String(), s.Confirmed != 0), Saved: orNull(s.Saved.String(), s.Saved != 0),
		SavedAt: orNull(s.SavedAt, s.Saved != 0), Delivered: orNull(s.Delivered.Text, s.Delivered.Known()),
		DeliveredAt: orNull(s.Delivered.Time, s.Delivered.Known()), End: s.End.String(),
		LagBytes: s.LagBytes, LagSeconds: s.LagAge.Seconds(), Tables: []tableForm{}, ParkedRows: s.Parked.Rows, ParkedKeys: s.Parked.Aggregates, RetainedBytes: s.RetainedBytes,
		KeepBytes: orNull(s.Server.KeepBytes, s.Server.KeepBytes >= 0), SafeBytes: orNull(s.SafeBytes, s.SafeBytes >= 0),
		AcceptedGaps: []gapForm{},
	}
	for _, t := range s.Tables {
		form.Tables = append(form.Tables, tableForm{t.Table, orNull(t.Rows, t.Rows >= 0), t.Problem})
	}
	if t := s.Server.Oldest; t != nil {
		form.OpenTransaction = &openForm{t.PID, t.Prepared, t.Application, t.Database, t.State, t.Age.Seconds()}
	}
	for i := range s.Gaps {
		g := &s.Gaps[i]
		form.AcceptedGaps = append(form.AcceptedGaps, gapForm{g.From.String(), g.To.String(), g.Reason})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(form)
}

// orNull is value, or null.
func orNull[T any](value T, is bool) *T {
	if !is {
		return nil
	}
	return &value
}
