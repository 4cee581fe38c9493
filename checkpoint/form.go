package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// The versions of the meaning of a written position. A change that an older program
// would misread gets the next number. Version 1 has neither index, snapshot nor gap;
// it is read, and replaced at the next save.
const (
	oldestFormat = 1
	format       = 2
)

// form is a position as files and topics hold it: JSON, so that people and their
// tools can read it. The checksum is over position and gap without white space.
type form struct {
	Format   int             `json:"format"`
	Position json.RawMessage `json:"position"`
	Gap      json.RawMessage `json:"gap,omitempty"`
	Checksum string          `json:"checksum"`
}

type positionForm struct {
	Slot      string        `json:"slot"`
	System    string        `json:"system"`
	Timeline  uint32        `json:"timeline"`
	Database  string        `json:"database"`
	LSN       string        `json:"lsn"`
	Index     uint64        `json:"index,omitempty"`
	SavedAt   time.Time     `json:"saved_at"`
	Delivered *snapshotForm `json:"delivered,omitempty"`
}

type snapshotForm struct {
	Snapshot string    `json:"snapshot"`
	LSN      string    `json:"lsn"`
	TakenAt  time.Time `json:"taken_at"`
}

type gapForm struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Before *snapshotForm `json:"before,omitempty"`
	After  *snapshotForm `json:"after,omitempty"`
	Reason string        `json:"reason"`
}

var (
	errDamaged       = errors.New("it is damaged")
	errUnknownFormat = errors.New("it is of another version")
)

// renderForm gives the written form of e on one line. It reads its own work back: what it
// cannot read must not replace what it can.
func renderForm(e Entry) ([]byte, error) {
	content, err := encode(e, format)
	if err != nil {
		return nil, fmt.Errorf("encode the position: %w", err)
	}
	back, _, err := decode(content)
	if err != nil {
		return nil, fmt.Errorf("encode the position: it does not read back: %w", err)
	}
	if !sameEntry(back, e) {
		return nil, errors.New("encode the position: it reads back as another")
	}
	return content, nil
}

// parseForm reads what renderForm wrote. It accepts nothing else but other white space: what
// is read must render to what was read. So the checksum is compared, and no name
// passes that is unknown, misspelt or there twice.
func parseForm(content []byte) (Entry, error) {
	e, version, err := decode(content)
	if err != nil {
		return Entry{}, err
	}
	again, err := encode(e, version)
	if err != nil || !bytes.Equal(again, compact(content)) {
		return Entry{}, fmt.Errorf("%w: it is not as it was written", errDamaged)
	}
	if e.Gap.Reason == "" && e.Gap != (Gap{}) {
		return Entry{}, fmt.Errorf("%w: it has a gap without a reason", errDamaged)
	}
	if version == oldestFormat && (e.Index != 0 || e.Delivered.Known() || e.Gap != Gap{}) {
		return Entry{}, fmt.Errorf("%w: it holds more than its version", errDamaged)
	}
	if err := complete(e.Position, e.Slot); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errDamaged, errors.Unwrap(err))
	}
	return e, nil
}

func encode(e Entry, version int) ([]byte, error) {
	f := form{Format: version}
	var err error
	f.Position, err = json.Marshal(positionForm{
		e.Slot, e.System, e.Timeline, e.Database, e.LSN.String(), e.Index, e.Time.UTC(), formOf(e.Delivered),
	})
	if err != nil {
		return nil, err
	}
	if e.Gap.Reason != "" {
		if f.Gap, err = json.Marshal(gapFormOf(e.Gap)); err != nil {
			return nil, err
		}
	}
	f.Checksum = checksum(f.Position, f.Gap)
	return json.Marshal(f)
}

func gapFormOf(g Gap) gapForm {
	return gapForm{g.From.String(), g.To.String(), formOf(g.Before), formOf(g.After), g.Reason}
}

func formOf(s Snapshot) *snapshotForm {
	if !s.Known() {
		return nil
	}
	return &snapshotForm{s.Text, s.At.String(), s.Time.UTC()}
}

func decode(content []byte) (e Entry, version int, err error) {
	var v struct{ Format int }
	if err := json.Unmarshal(content, &v); err != nil {
		return e, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if v.Format < oldestFormat || v.Format > format {
		return e, 0, fmt.Errorf("%w: its format is %d, this outboxcdc knows %d to %d", errUnknownFormat, v.Format, oldestFormat, format)
	}
	var f form
	if err := json.Unmarshal(content, &f); err != nil {
		return e, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if e.Position, err = decodePosition(f.Position); err != nil {
		return e, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(f.Gap) > 0 {
		if e.Gap, err = decodeGap(f.Gap); err != nil {
			return e, 0, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return e, v.Format, nil
}

func decodePosition(content []byte) (Position, error) {
	var f positionForm
	if err := json.Unmarshal(content, &f); err != nil {
		return Position{}, err
	}
	p := Position{Slot: f.Slot, System: f.System, Timeline: f.Timeline, Database: f.Database, Index: f.Index, Time: f.SavedAt}
	var err error
	if p.LSN, err = wal.ParseLSN(f.LSN); err != nil {
		return Position{}, err
	}
	p.Delivered, err = f.Delivered.snapshot()
	return p, err
}

func decodeGap(content []byte) (g Gap, err error) {
	var f gapForm
	if err := json.Unmarshal(content, &f); err != nil {
		return Gap{}, err
	}
	g.Reason = f.Reason
	if g.From, err = wal.ParseLSN(f.From); err != nil {
		return Gap{}, err
	}
	if g.To, err = wal.ParseLSN(f.To); err != nil {
		return Gap{}, err
	}
	if g.Before, err = f.Before.snapshot(); err != nil {
		return Gap{}, err
	}
	g.After, err = f.After.snapshot()
	return g, err
}

func (f *snapshotForm) snapshot() (Snapshot, error) {
	if f == nil {
		return Snapshot{}, nil
	}
	at, err := wal.ParseLSN(f.LSN)
	if err == nil && f.Snapshot == "" {
		err = errors.New("a snapshot is empty")
	}
	return Snapshot{Text: f.Snapshot, At: at, Time: f.TakenAt}, err
}

// sameEntry compares what counts: clocks of one moment may differ as values.
func sameEntry(a, b Entry) bool {
	for _, pair := range []struct{ a, b *time.Time }{
		{&a.Time, &b.Time},
		{&a.Delivered.Time, &b.Delivered.Time},
		{&a.Gap.Before.Time, &b.Gap.Before.Time},
		{&a.Gap.After.Time, &b.Gap.After.Time},
	} {
		if !pair.a.Equal(*pair.b) {
			return false
		}
		*pair.a = *pair.b
	}
	return a == b
}

func checksum(parts ...json.RawMessage) string {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for _, part := range parts {
		sum.Write(part)
	}
	return fmt.Sprintf("crc32c:%08x", sum.Sum32())
}

// compact is content without white space, or nil when it is no JSON.
func compact(content []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, content) != nil {
		return nil
	}
	return out.Bytes()
}
