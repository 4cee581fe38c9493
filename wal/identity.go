package wal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Identify asks the server which log this is.
func (c *Conn) Identify(ctx context.Context) (Identity, error) {
	columns, err := c.command(ctx, "IDENTIFY_SYSTEM", 4)
	if err != nil {
		return Identity{}, fmt.Errorf("identify the server: %w", err)
	}
	timeline, err := strconv.ParseUint(string(columns[1]), 10, 32)
	if err != nil {
		return Identity{}, fmt.Errorf("identify the server: read its timeline: %w", err)
	}
	flush, err := ParseLSN(string(columns[2]))
	if err != nil {
		return Identity{}, fmt.Errorf("identify the server: %w", err)
	}
	return Identity{
		System:   string(columns[0]),
		Timeline: uint32(timeline),
		Database: string(columns[3]),
		Flush:    flush,
	}, nil
}

// TimelineSwitch is where a timeline ended and the next began.
type TimelineSwitch struct {
	Timeline uint32 // the one that ended
	At       LSN    // what it has behind this position is not part of the next
}

// History gives the switches that led to a timeline, the oldest first. Timeline 1
// has none.
func (c *Conn) History(ctx context.Context, timeline uint32) ([]TimelineSwitch, error) {
	if timeline <= 1 {
		return nil, nil // the server keeps no file for it
	}
	columns, err := c.command(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline), 2)
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	switches, err := parseHistory(columns[1])
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	return switches, nil
}

// command runs a replication command that answers with one row.
func (c *Conn) command(ctx context.Context, command string, columns int) ([][]byte, error) {
	results, err := c.pg.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, Fault(err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, errors.New("the answer has another form than the protocol's")
	}
	return results[0].Rows[0], nil
}

// parseHistory reads a timeline history file: a line for each switch with timeline,
// position and reason, comments behind # (timeline.c, readTimeLineHistory).
func parseHistory(content []byte) ([]TimelineSwitch, error) {
	var switches []TimelineSwitch
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		s, err := parseSwitch(fields)
		if err != nil {
			return nil, err
		}
		if n := len(switches); n > 0 && (s.Timeline <= switches[n-1].Timeline || s.At < switches[n-1].At) {
			return nil, fmt.Errorf("timeline %d at %v does not follow timeline %d at %v",
				s.Timeline, s.At, switches[n-1].Timeline, switches[n-1].At)
		}
		switches = append(switches, s)
	}
	return switches, lines.Err()
}

func parseSwitch(fields []string) (TimelineSwitch, error) {
	if len(fields) < 2 {
		return TimelineSwitch{}, errors.New("a line has a timeline and no position")
	}
	timeline, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil {
		return TimelineSwitch{}, fmt.Errorf("read a timeline: %w", err)
	}
	at, err := ParseLSN(fields[1])
	if err != nil {
		return TimelineSwitch{}, err
	}
	return TimelineSwitch{Timeline: uint32(timeline), At: at}, nil
}
