package wal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// TransactionError is about a transaction that cannot be read.
type TransactionError struct {
	Commit LSN
	XID    uint32
	Err    error
}

// Error names the transaction.
func (e *TransactionError) Error() string {
	return fmt.Sprintf("read a row in transaction %d, which commits at %v: %v", e.XID, e.Commit, e.Err)
}

// Unwrap gives the cause.
func (e *TransactionError) Unwrap() error { return e.Err }

// explainRead says what a failed read means.
func (s *Stream) explainRead(err error) error {
	if errors.Is(err, ErrFrameTooLarge) && !s.rows.tx.open {
		// Which can be a logical message alone, as messages of others come, too.
		return fault.NewData(fmt.Errorf("read a message outside of a transaction, after %v: %w", s.rows.last, err),
			fmt.Sprintf("the stream stands before this message; outboxcdc recover --slot %s --anew makes the slot anew behind it and sends from the table "+
				"what waits, but no logical message", s.config.Slot))
	}
	if errors.Is(err, ErrFrameTooLarge) {
		return fault.NewData(
			&TransactionError{Commit: s.rows.tx.commit, XID: s.rows.tx.xid, Err: err},
			"the stream stands before this transaction and nothing of it is lost")
	}
	if errors.Is(err, io.EOF) {
		// A walsender that gives up on us, or is terminated, says nothing more.
		return fmt.Errorf("read: the server closed the connection: %w", err)
	}
	return fmt.Errorf("read: %w", err)
}

func (s *Stream) serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return s.rows.explain('E', err)
	}
	err := fmt.Errorf("read slot %s: %w", s.config.Slot, pgconn.ErrorResponseToPgError(&m))
	const undefinedObject = "42704"
	if m.Code == undefinedObject {
		return fault.NewOperator(err, fmt.Sprintf("the slot decodes its log with the publications of that time, so rows that were written while "+
			"publication %s did not exist cannot be read from it: make the publication again (outboxcdc init), then run "+
			"outboxcdc recover --slot %s --anew, which makes the slot anew and sends from the table what is missing", s.config.Publication, s.config.Slot))
	}
	return Fault(err)
}

// notice classifies what the server says beside the stream. Postgres 18 answers a
// publication that does not exist at this point of the log with a warning and
// skips its rows for good (pgoutput.c, LoadPublications); that warning must stop
// us. Its SQLSTATE is shared with the harmless one of a failover slot that waits
// for a standby (slot.c, StandbySlotsHaveCaughtup), which the name of the C
// function tells apart: unlike the text it is not translated.
func (s *Stream) notice(body []byte) error {
	var m pgproto3.NoticeResponse
	if err := m.Decode(body); err != nil {
		return s.rows.explain('N', err)
	}
	const objectNotInPrerequisiteState = "55000"
	switch {
	case m.Routine == "StandbySlotsHaveCaughtup":
		s.logger.Warn("the stream is held back until a standby has the log",
			slog.String("slot", s.config.Slot), slog.String("message", m.Message), slog.String("hint", m.Hint))
		return nil
	case m.Code == objectNotInPrerequisiteState:
		return fault.NewOperator(
			fmt.Errorf("the server skips rows of publication %s: %s", s.config.Publication, m.Message),
			"create the publication again and send the rows of the gap once more; nothing was confirmed past it")
	default:
		s.logger.Warn("notice from the server", slog.String("code", m.Code), slog.String("message", m.Message))
		return nil
	}
}
