package waltest

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

// savedRow is a row of outboxcdc.checkpoint. Its columns but the position and the
// timeline are kept as they came.
type savedRow struct {
	slot, system, database string
	format, timeline       int64
	lsn                    wal.LSN
	at                     time.Time

	delivered, deliveredLSN string // empty when there is none
}

// extended answers a message of the extended protocol, which the checkpoint store
// speaks, and nobody else: it loads the row of a slot, or saves it.
func (c *conn) extended(message pgproto3.FrontendMessage) error {
	switch m := message.(type) {
	case *pgproto3.Parse:
		c.sql = m.Query
		c.backend.Send(&pgproto3.ParseComplete{})
	case *pgproto3.Bind:
		row, err := bindRow(m)
		if err != nil {
			return err
		}
		c.bound = row
		c.backend.Send(&pgproto3.BindComplete{})
	case *pgproto3.Describe:
		c.describeRow()
	case *pgproto3.Execute:
		c.execute()
	case *pgproto3.Sync:
		c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		return c.backend.Flush()
	default: // Terminate, or what nobody sends
		return errGone
	}
	return nil
}

func (c *conn) saves() bool { return strings.Contains(c.sql, "INSERT INTO outboxcdc.checkpoint") }

// keeps says whether an entry of the history is written; nobody reads it here.
func (c *conn) keeps() bool { return strings.Contains(c.sql, "INSERT INTO outboxcdc.history") }

func (c *conn) describeRow() {
	if c.saves() || c.keeps() || strings.Contains(c.sql, "LIMIT 0") {
		c.backend.Send(&pgproto3.NoData{})
		return
	}
	var description pgproto3.RowDescription
	for _, column := range []struct {
		name string
		oid  uint32
	}{{"format", 23}, {"system", 25}, {"timeline", 20}, {"database", 25}, {"lsn", 25}, {"index", 20}, {"saved_at", 20}, {"delivered", 25}, {"delivered_lsn", 25}, {"delivered_at", 20}, {"gap", 25}} {
		if column.name == "gap" && !strings.Contains(c.sql, "FROM outboxcdc.history") {
			continue
		}
		description.Fields = append(description.Fields, pgproto3.FieldDescription{
			Name: []byte(column.name), DataTypeOID: column.oid, DataTypeSize: -1, TypeModifier: -1,
		})
	}
	c.backend.Send(&description)
}

func (c *conn) execute() {
	if c.keeps() && !c.saves() {
		c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
		return
	}
	if c.saves() {
		n := c.s.save(c.bound)
		c.backend.Send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "INSERT 0 %d", n)})
		return
	}
	c.s.mu.Lock()
	row, there := c.s.saved[c.bound.slot]
	c.s.mu.Unlock()
	if there && !strings.Contains(c.sql, "FROM outboxcdc.history") {
		deliveredLSN, deliveredAt := "0/0", "0"
		if row.delivered != "" {
			deliveredLSN, deliveredAt = row.deliveredLSN, strconv.FormatInt(row.at.UnixMicro(), 10)
		}
		c.backend.Send(&pgproto3.DataRow{Values: [][]byte{
			strconv.AppendInt(nil, row.format, 10), []byte(row.system), strconv.AppendInt(nil, row.timeline, 10),
			[]byte(row.database), []byte(row.lsn.String()), []byte("0"), strconv.AppendInt(nil, row.at.UnixMicro(), 10),
			[]byte(row.delivered), []byte(deliveredLSN), []byte(deliveredAt),
		}})
	}
	c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

// save is the store's INSERT … ON CONFLICT DO UPDATE … WHERE: it changes no row that
// must stay.
func (s *Server) save(row savedRow) (rows int) {
	s.mu.Lock()
	old, there := s.saved[row.slot]
	ok := !there || old.format <= row.format && old.system == row.system && old.database == row.database &&
		(old.timeline < row.timeline || old.timeline == row.timeline && old.lsn <= row.lsn)
	if ok {
		s.saved[row.slot] = row
	}
	s.mu.Unlock()
	if !ok {
		return 0
	}
	if s.OnSave != nil {
		s.OnSave(row.lsn)
	}
	return 1
}

// bindRow reads the parameters: the slot, and for a save the other columns.
func bindRow(m *pgproto3.Bind) (row savedRow, err error) {
	text := func(i int) string { return string(m.Parameters[i]) }
	row.slot, row.at = text(0), time.Now()
	if len(m.Parameters) < 10 {
		return row, nil
	}
	row.system, row.database = text(2), text(4)
	if row.format, err = integer(m, 1); err != nil {
		return row, err
	}
	if row.timeline, err = integer(m, 3); err != nil {
		return row, err
	}
	row.delivered, row.deliveredLSN = text(8), text(9)
	row.lsn, err = wal.ParseLSN(text(5))
	return row, err
}

// integer reads a number in either form.
func integer(m *pgproto3.Bind, i int) (int64, error) {
	value := m.Parameters[i]
	binaryForm := len(m.ParameterFormatCodes) == 1 && m.ParameterFormatCodes[0] == 1 ||
		i < len(m.ParameterFormatCodes) && m.ParameterFormatCodes[i] == 1
	switch {
	case !binaryForm:
		return strconv.ParseInt(string(value), 10, 64)
	case len(value) == 4:
		return int64(int32(binary.BigEndian.Uint32(value))), nil
	case len(value) == 8:
		return int64(binary.BigEndian.Uint64(value)), nil
	default:
		return 0, fmt.Errorf("an integer of %d bytes", len(value))
	}
}
