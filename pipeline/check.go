package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// codePosition is the finding about what is saved.
const codePosition = "position"

// CheckDatabase gives wal.Preflight's findings and one about the saved position:
// whether a stream may go on from there, by the same judgement as at a start. It saves
// nothing; a file store looks whether its folder can be written to. An error means
// that it could not look.
func CheckDatabase(ctx context.Context, config Config, conn *wal.Conn) ([]fault.Finding, error) {
	findings, err := wal.Preflight(ctx, conn)
	if err != nil {
		return nil, err
	}
	judged, err := judgeFormat(ctx, config.Outbox.Format, config.Wal.Tables, conn)
	if err != nil {
		return nil, err
	}
	unreadable, err := conn.Unreadable(ctx)
	if err != nil {
		return nil, err
	}
	findings = slices.Concat(findings, judged, unreadable)
	if config.OnError == OnErrorPark {
		parking, err := conn.CheckParking(ctx)
		if err != nil {
			return nil, err
		}
		findings = append(findings, parking)
	}
	position, gone := checkPosition(ctx, config, conn)
	if gone {
		// Its fix would make a slot that the position refuses.
		findings = slices.DeleteFunc(findings, func(f fault.Finding) bool { return f.Code == wal.CodeSlotMissing })
	}
	return append(append(findings, position), namedByRows(config)...), nil
}

// codeTemplate is the finding about topics that are not known beforehand.
const codeTemplate = "topic.by_row"

// namedByRows says which topics nobody can look at before the rows come. To a stream of
// lines a topic is a word.
func namedByRows(config Config) []fault.Finding {
	if strings.HasPrefix(config.Sink, "stdout:") {
		return nil
	}
	plan, err := outbox.NewPlan(config.Outbox, config.Wal.Tables)
	if err != nil {
		return nil // which who asks has been told
	}
	var findings []fault.Finding
	for _, template := range plan.Templates() {
		findings = append(findings, fault.Finding{
			Code: codeTemplate, Subject: "topics " + template,
			Problem: "they are named by rows: each is looked up when its first row comes, and a stream without --create-topics stops at one that does not exist",
		})
	}
	return findings
}

// codeFormat is the finding about a table that the format cannot write.
const codeFormat = "format"

// judgeFormat gives a failure for each table that a Whole format cannot write. One that
// does not exist is another finding's.
func judgeFormat(ctx context.Context, format outbox.Format, tables []wal.Table, conn *wal.Conn) ([]fault.Finding, error) {
	whole, ok := format.(outbox.Whole)
	if !ok {
		return nil, nil
	}
	var findings []fault.Finding
	for _, t := range tables {
		columns, err := conn.Describe(ctx, t.Schema, t.Name)
		if err != nil {
			return nil, err
		}
		if len(columns) == 0 {
			continue
		}
		if err := whole.Judge(t.Schema, t.Name, columns); err != nil {
			findings = append(findings, failed(fault.Finding{Code: codeFormat, Subject: "format"}, err))
		}
	}
	return findings, nil
}

// checkPosition says with gone that something is saved for a slot that is missing.
func checkPosition(ctx context.Context, config Config, conn *wal.Conn) (f fault.Finding, gone bool) {
	config.setDefaults()
	f = fault.Finding{Code: codePosition, Subject: "saved position"}
	store, err := checkpoint.Open(ctx, config.Checkpoint, checkpoint.Options{
		Slot: config.Wal.Slot, Database: config.Wal.Database, Dial: config.Wal.Dial, Logger: config.Logger,
	})
	if err != nil {
		return failed(f, err), false
	}
	defer store.Close() //nolint:errcheck // nothing was saved
	r := &Runner{config: config, logger: config.Logger, store: store}
	e, err := r.gather(ctx, conn)
	if err == nil {
		var v Verdict
		if v, err = judge(e); err == nil {
			err = v.err()
		}
	}
	if err == nil {
		err = missingRights(ctx, store)
	}
	switch {
	case err != nil:
		f = failed(f, err)
	case e.saved == nil:
		f.Problem = "none yet, as before a first start"
	default:
		f.Problem = fmt.Sprintf("the stream goes on from %v", e.saved.LSN)
	}
	return f, e.saved != nil && e.slot == nil
}

// missingRights is for what a look does not need, and a save does.
func missingRights(ctx context.Context, store checkpoint.Store) error {
	e, ok := store.(checkpoint.Entitled)
	if !ok {
		return nil
	}
	fix, err := e.Missing(ctx)
	if err != nil || fix == "" {
		return err
	}
	return fault.NewOperator(errors.New("the role may not write all that it will have to"), fix)
}

func failed(f fault.Finding, err error) fault.Finding {
	f.Severity, f.Problem = fault.Failure, err.Error()
	if known, ok := errors.AsType[*fault.Error](err); ok {
		f.Problem, f.Fix = known.Err.Error(), known.Advice
	}
	return f
}
