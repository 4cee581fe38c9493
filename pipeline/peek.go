package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// WaitingRow is a row that stands in the log and is not confirmed, for the eyes of an
// operator who asked for it: it shows what the row holds.
type WaitingRow struct {
	Commit  wal.LSN   `json:"-"`
	LSN     string    `json:"lsn"` // of the transaction's commit: what skip takes
	Index   int       `json:"index"`
	XID     uint32    `json:"xid"`
	Time    time.Time `json:"committed_at"`
	Table   string    `json:"table"`
	Columns []Column  `json:"columns"`
	Topic   string    `json:"topic,omitempty"`   // where it goes; empty when it cannot be sent
	Problem string    `json:"problem,omitempty"` // why it cannot be sent; empty when it can
}

// Column is a column of a WaitingRow; its value is nil for NULL.
type Column struct {
	Name  string  `json:"name"`
	Value *string `json:"value"`
}

// errEnough ends a look at the log.
var errEnough = errors.New("enough")

// Peek shows the rows that wait in the slot, the oldest first and at most limit of
// them, without confirming any: it reads a copy of the slot, up to where the log ends
// at its beginning. It works while a stream runs. from is where it begins; 0 means
// where the slot stands. more says that there are more than limit.
func Peek(ctx context.Context, config Config, from wal.LSN, limit int, show func(WaitingRow) error) (more bool, err error) {
	plan, err := config.validateRead()
	if err != nil {
		return false, err
	}
	end, err := endOfLog(ctx, config.Wal)
	if err != nil {
		return false, err
	}
	look, err := openExcerpt(ctx, config.Wal, config.Wal.Slot, from, end)
	if err != nil {
		return false, fmt.Errorf("peek into slot %s: %w", config.Wal.Slot, err)
	}
	mapper := outbox.NewMapper(plan)
	shown := 0
	err = look.each(ctx, func(batch wal.Batch) error {
		for i := range batch.Rows {
			if shown == limit {
				more = true
				return errEnough
			}
			shown++
			if err := show(waiting(config.Wal.Tables, &batch.Rows[i], mapper)); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return more, err
}

// validateRead is validate for what reads and sends nowhere.
func (c *Config) validateRead() (*outbox.Plan, error) {
	c.setDefaults()
	plan, err := outbox.NewPlan(c.Outbox, c.Wal.Tables)
	if plan != nil {
		c.Wal.Tables = plan.Tables()
	}
	return plan, errors.Join(err, c.Wal.Validate())
}

// endOfLog is where the log ends now.
func endOfLog(ctx context.Context, config wal.Config) (wal.LSN, error) {
	conn, err := wal.Connect(ctx, config)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	identity, err := conn.Identify(ctx)
	return identity.Flush, err
}

// waiting copies a row for people, and says whether it could be sent.
func waiting(tables []wal.Table, row *wal.Row, mapper *outbox.Mapper) WaitingRow {
	table := wal.Table{Schema: "logical", Name: "message", Columns: []wal.Column{{Name: "content"}}}
	if row.Table < len(tables) {
		table = tables[row.Table]
	}
	w := WaitingRow{
		Commit: row.Commit, LSN: row.Commit.String(), Index: row.Index, XID: row.XID, Time: row.Time,
		Table: table.Schema + "." + table.Name,
	}
	for i, column := range table.Columns {
		c := Column{Name: column.Name}
		if row.Columns[i] != nil {
			value := string(row.Columns[i])
			c.Value = &value
		}
		w.Columns = append(w.Columns, c)
	}
	messages, err := mapper.Map([]wal.Row{*row}, nil)
	if len(messages) > 0 {
		w.Topic = messages[0].Topic
	}
	if err != nil {
		w.Problem = err.Error()
		if known, ok := errors.AsType[*fault.Error](err); ok {
			w.Problem = known.Err.Error()
		}
	}
	return w
}
