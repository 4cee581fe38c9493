package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxFileBytes is far more than a position takes.
const maxFileBytes = 1 << 20

// renderFile gives the content of the file for p, indented for people.
func renderFile(p Position) ([]byte, error) {
	line, err := renderForm(Entry{Position: p})
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	if err := json.Indent(&content, line, "", "  "); err != nil {
		return nil, fmt.Errorf("encode the position: %w", err)
	}
	content.WriteByte('\n')
	return content.Bytes(), nil
}

// parseFile reads what renderFile wrote, and the files of older versions.
func parseFile(content []byte) (Position, error) {
	if len(content) > maxFileBytes {
		return Position{}, fmt.Errorf("%w: it is larger than %d bytes", errDamaged, maxFileBytes)
	}
	e, err := parseForm(content)
	if err == nil && e.Gap.Reason != "" {
		err = fmt.Errorf("%w: it holds a gap", errDamaged)
	}
	return e.Position, err
}
