package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	topInterval = time.Second
	topTimeout  = 5 * time.Second
)

func (p *program) topCommand() *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "show a running stream in the terminal",
		Description: `Asks the stream that listens on --http once a second, until it is interrupted. It shows
what the status page shows.

Example:

   outboxcdc top --http 127.0.0.1:9180`,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			text("http", defaultHTTP, "`ADDRESS` that the stream listens on, its --http"),
			&cli.BoolFlag{Name: "once", EnvVars: []string{twin("once")}, Usage: "show it once and end"},
		},
		OnUsageError: badFlag,
		Action:       p.top,
	}
}

func (p *program) top(c *cli.Context) error {
	address, err := httpAddress(c)
	if err := errors.Join(noArguments(c), err); err != nil {
		return err
	}
	if address == "" {
		return fault.NewUsage(errors.New("--http off names no address"), "give the address that the stream listens on")
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	clock := time.NewTicker(topInterval)
	defer clock.Stop()
	for {
		now, err := askLive(ctx, address)
		if ctx.Err() != nil {
			return nil
		}
		if c.Bool("once") {
			if err == nil {
				_, err = io.WriteString(p.out, topText(&now))
			}
			return err
		}
		p.redraw(now, err)
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
	}
}

// redraw writes over what stood there before: home, text, clear to the end.
func (p *program) redraw(now live, err error) {
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	text := topText(&now)
	if err != nil {
		text = err.Error() + "\n"
	}
	io.WriteString(p.out, home+strings.ReplaceAll(text, "\n", clearLine+"\n")+clearBelow) //nolint:errcheck // the terminal has gone
}

func askLive(ctx context.Context, address string) (live, error) {
	var now live
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return now, err
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, topTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/status", http.NoBody)
	if err != nil {
		return now, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return now, &fault.Error{
			Class: fault.Transient, Err: fmt.Errorf("ask the stream at %s: %w", address, reason(err)),
			Advice: "name the address that the stream listens on with --http",
		}
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&now); err != nil || response.StatusCode != http.StatusOK {
		return now, fault.NewUsage(fmt.Errorf("what listens at %s is not outboxcdc", address), "name the stream's --http")
	}
	return now, nil
}

// topText is the status page in plain text.
func topText(now *live) string {
	var out strings.Builder
	fmt.Fprintf(&out, "outboxcdc %s   %s   %s\n", now.Slot, strings.ToUpper(now.State), now.Now.Local().Format(time.TimeOnly))
	if now.Reason != now.State && len(now.Troubles) == 0 {
		fmt.Fprintf(&out, "%s\n", now.Reason)
	}
	for _, t := range now.Troubles {
		fmt.Fprintf(&out, "%s\n  %s\n", t.Problem, t.Fix)
	}
	out.WriteString("\n")
	for i, place := range now.Positions {
		gap := ""
		if i > 0 && place.Bytes != 0 {
			gap = "  " + sized(place.Behind) + " behind"
		}
		at := place.LSN
		if place.Bytes == 0 {
			at = "not known yet"
		}
		fmt.Fprintf(&out, "  %-10s %-18s%s\n", place.Of, at, gap)
	}
	out.WriteString("\n")
	if n := len(now.Samples); n > 0 {
		fmt.Fprintf(&out, "  %-28s %s\n", "rows a second", spark(now.Samples, func(s sample) float64 { return s.RowsPerSecond }))
		fmt.Fprintf(&out, "  %-28s %s\n", "read, not confirmed", spark(now.Samples, func(s sample) float64 { return float64(s.BehindBytes) }))
		fmt.Fprintf(&out, "  %-28s %.0f rows a second, %s\n", "now", now.Samples[n-1].RowsPerSecond, sized(now.Samples[n-1].BehindBytes))
	}
	fmt.Fprintf(&out, "  %-28s %.1f s\n", "longest wait for the broker", now.WaitingSeconds)
	if now.LookedAt != nil {
		left := "no limit is set"
		if now.SafeBytes != nil {
			left = sized(uint64(max(0, *now.SafeBytes))) + " left before the slot is lost"
		}
		fmt.Fprintf(&out, "  %-28s %s, %s\n", "log kept for the slot", sized(uint64(max(0, now.RetainedBytes))), left)
	}
	fmt.Fprintf(&out, "  %-28s %d, in %d sessions\n", "rows since the start", now.Rows, now.Sessions)
	if now.ParkedRows > 0 {
		fmt.Fprintf(&out, "  %-28s %d, of %d aggregates\n", "rows parked", now.ParkedRows, now.ParkedKeys)
	}
	if now.SkippedRows > 0 {
		fmt.Fprintf(&out, "  %-28s %d\n", "rows skipped", now.SkippedRows)
	}
	for i, past := range now.Errors {
		if i == 0 {
			out.WriteString("\n  sessions that broke\n")
		}
		fmt.Fprintf(&out, "  %s  %s\n", past.At.Local().Format(time.TimeOnly), past.Text)
	}
	return out.String()
}

// spark draws the last values, each column the largest of some.
func spark(samples []sample, value func(sample) float64) string {
	const columns = 40
	bars := []rune("▁▂▃▄▅▆▇█")
	each := max(1, (len(samples)+columns-1)/columns)
	var tops []float64
	most := 0.0
	for i := 0; i < len(samples); i += each {
		top := 0.0
		for _, s := range samples[i:min(len(samples), i+each)] {
			top = max(top, value(s))
		}
		tops, most = append(tops, top), max(most, top)
	}
	var out strings.Builder
	for _, top := range tops {
		bar := 0
		if most > 0 {
			bar = int(top / most * float64(len(bars)-1))
		}
		out.WriteRune(bars[bar])
	}
	return out.String()
}

// sized writes a number of bytes for people.
func sized(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
