package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func acceptFlag() cli.Flag {
	return text("accept-gap", "", "go on although events may be missing: the `POSITION` that the refusal named, such as 0/16B3748")
}

// acceptGap reads the flag; 0 accepts nothing.
func acceptGap(c *cli.Context) (wal.LSN, error) {
	position := c.String("accept-gap")
	if position == "" {
		return 0, nil
	}
	lsn, err := wal.ParseLSN(position)
	if err != nil || lsn == 0 {
		return 0, fault.NewUsage(errors.New("--accept-gap is not a position"),
			"give the saved position that the refusal named, such as --accept-gap 0/16B3748")
	}
	return lsn, nil
}
