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

// fileFormat is the version of the meaning of a checkpoint file. A change that an
// older program would misread gets the next number.
const fileFormat = 1

// maxFileBytes is far more than a position takes.
const maxFileBytes = 64 << 10

// fileForm is a checkpoint file: JSON, so that people and their tools can read it.
// The checksum is over the position without white space.
type fileForm struct {
	Format   int             `json:"format"`
	Position json.RawMessage `json:"position"`
	Checksum string          `json:"checksum"`
}

type positionForm struct {
	Slot     string    `json:"slot"`
	System   string    `json:"system"`
	Timeline uint32    `json:"timeline"`
	Database string    `json:"database"`
	LSN      string    `json:"lsn"`
	SavedAt  time.Time `json:"saved_at"`
}

var (
	errDamaged       = errors.New("it is damaged")
	errUnknownFormat = errors.New("it is of another version")
)

// renderFile gives the content of the file for p. It reads its own work back: what
// it cannot read must not replace what it can.
func renderFile(p Position) ([]byte, error) {
	position, err := json.Marshal(positionForm{p.Slot, p.System, p.Timeline, p.Database, p.LSN.String(), p.Time.UTC()})
	if err != nil {
		return nil, fmt.Errorf("encode the position: %w", err)
	}
	content, err := json.MarshalIndent(fileForm{fileFormat, position, checksum(position)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the position: %w", err)
	}
	content = append(content, '\n')
	back, err := decodeFile(content)
	if err != nil {
		return nil, fmt.Errorf("encode the position: it does not read back: %w", err)
	}
	// Clocks of one moment may differ as values.
	sameTime := back.Time.Equal(p.Time)
	if back.Time = p.Time; !sameTime || back != p {
		return nil, errors.New("encode the position: it reads back as another")
	}
	return content, nil
}

// parseFile reads what renderFile wrote. It accepts nothing else but other white
// space: what is read must render to what was read. So the checksum is compared,
// and no name passes that is unknown, misspelt or there twice.
func parseFile(content []byte) (Position, error) {
	if len(content) > maxFileBytes {
		return Position{}, fmt.Errorf("%w: it is larger than %d bytes", errDamaged, maxFileBytes)
	}
	p, err := decodeFile(content)
	if err != nil {
		return Position{}, err
	}
	again, err := renderFile(p)
	if err != nil || !bytes.Equal(compact(again), compact(content)) {
		return Position{}, fmt.Errorf("%w: it is not as it was written", errDamaged)
	}
	if err := complete(p, p.Slot); err != nil {
		return Position{}, fmt.Errorf("%w: %w", errDamaged, errors.Unwrap(err))
	}
	return p, nil
}

func decodeFile(content []byte) (Position, error) {
	var version struct{ Format int }
	if err := json.Unmarshal(content, &version); err != nil {
		return Position{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if version.Format != fileFormat {
		return Position{}, fmt.Errorf("%w: its format is %d, this outboxcdc knows %d", errUnknownFormat, version.Format, fileFormat)
	}
	var file fileForm
	if err := json.Unmarshal(content, &file); err != nil {
		return Position{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return decodePosition(file.Position)
}

func decodePosition(content []byte) (Position, error) {
	var form positionForm
	if err := json.Unmarshal(content, &form); err != nil {
		return Position{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	lsn, err := wal.ParseLSN(form.LSN)
	if err != nil {
		return Position{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return Position{form.Slot, form.System, form.Timeline, form.Database, lsn, form.SavedAt}, nil
}

func checksum(content []byte) string {
	return fmt.Sprintf("crc32c:%08x", crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
}

// compact is content without white space, or nil when it is no JSON.
func compact(content []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, content) != nil {
		return nil
	}
	return out.Bytes()
}
