package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Defaults that the packages below do not have.
const (
	defaultTable       = "public.outbox"
	noTable            = "none"
	defaultPublication = "outboxcdc"
	defaultHTTP        = "127.0.0.1:9180"
)

// The flags in the order in which help shows them: each command takes a part.
func databaseFlags() []cli.Flag {
	return []cli.Flag{
		text("slot", "", "replication slot `NAME`; one stream, one slot"),
		text("database-url", "", "`URL` or key=value string of the database; without it the PG* variables count"),
		text("publication", defaultPublication, "publication `NAME`"),
		&cli.StringSliceFlag{
			Name: "table", EnvVars: []string{twin("table")}, DefaultText: defaultTable,
			Usage: "outbox table `SCHEMA.NAME`, quoted as in SQL; repeat it or separate by commas",
		},
		text("message-prefix", "", "also stream logical messages with this `PREFIX`, which outboxcdc.publish_message writes with outboxcdc; with --table none nothing else"),
	}
}

func brokerFlags() []cli.Flag {
	return []cli.Flag{
		text("sink", "", "where events go, a `URL`: kafka://host:9092,host:9092?setting=value, amqps://user:password@host/vhost?exchange=name or stdout://"),
		&cli.BoolFlag{
			Name: "create-topics", EnvVars: []string{twin("create-topics")},
			Usage: "create topics that are missing instead of refusing to start",
		},
		checkpointFlag(),
	}
}

func streamFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{
			Name: "drain-timeout", EnvVars: []string{twin("drain-timeout")}, Value: pipeline.DefaultDrainTimeout,
			Usage: "how `LONG` a stop may wait for the broker",
		},
		acceptFlag(),
		historyIntervalFlag(),
		historyKeepFlag(),
		text("replay-window", "", "keep a slot so far behind the stream for exact replays: `WINDOW` is 24h, 50GB, or 24h,50GB"),
		text("mark-sent", "", "set this `COLUMN` of type text to SENT in rows that the broker holds"),
		&cli.BoolFlag{
			Name: "delete-sent", EnvVars: []string{twin("delete-sent")},
			Usage: "delete rows that the broker holds",
		},
		text("http", defaultHTTP, "listen `ADDRESS` for /livez, /readyz and /metrics, or off"),
	}
}

func logFlags() []cli.Flag {
	return []cli.Flag{
		text("log-level", "info", "`LEVEL`: debug, info, warn or error"),
		text("log-format", "text", "`FORMAT`: text or json"),
	}
}

// text is a flag with its twin in the environment. Help never shows what the
// environment holds.
func text(name, value, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, EnvVars: []string{twin(name)}, Value: value, Usage: usage}
}

// twin is the name of a flag in the environment.
func twin(name string) string {
	return "OUTBOXCDC_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// stringOf is the value of a flag. One that is set to nothing, as deployment tools
// do with variables that have no value, counts as not set.
func stringOf(c *cli.Context, name, fallback string) string {
	if value := c.String(name); value != "" {
		return value
	}
	return fallback
}

// required gives the value of a flag and refuses an empty one. In its place it
// gives stand, which has no problem, so that the others are still looked at.
func required(c *cli.Context, name, stand string) (string, error) {
	if value := c.String(name); value != "" {
		return value, nil
	}
	return stand, fault.NewUsage(fmt.Errorf("--%s is missing", name), "give the flag or set "+twin(name))
}

// walConfig reads databaseFlags.
func walConfig(c *cli.Context) (wal.Config, error) {
	slot, slotErr := required(c, "slot", "slot")
	names := slices.DeleteFunc(c.StringSlice("table"), func(name string) bool { return name == "" })
	if len(names) == 0 {
		names = []string{defaultTable}
	}
	prefix := c.String("message-prefix")
	if len(names) == 1 && names[0] == noTable && prefix != "" {
		names = nil
	}
	tables, tableErr := parseTables(names)
	if len(names) == 1 && names[0] == noTable {
		tableErr = fault.NewUsage(errors.New("--table none stands without --message-prefix, so there is nothing to read"), "name a table, or the prefix of messages where the command takes it")
	}
	if tableErr != nil {
		tables = []wal.Table{{Schema: "public", Name: "outbox"}}
	}
	return wal.Config{
		Database:    c.String("database-url"),
		Slot:        slot,
		Publication: stringOf(c, "publication", defaultPublication),
		Tables:      tables,

		MessagePrefix: prefix,
	}, errors.Join(noArguments(c), slotErr, tableErr)
}

// pipelineConfig reads databaseFlags, mappingFlags, brokerFlags and streamFlags.
func pipelineConfig(c *cli.Context) (pipeline.Config, error) {
	source, sourceErr := walConfig(c)
	url, sinkErr := required(c, "sink", "stdout://")
	mapping, mappingErr := outboxConfig(c, source.Tables)
	drain, drainErr := c.Duration("drain-timeout"), error(nil)
	if c.IsSet("drain-timeout") && drain == 0 {
		drainErr = fault.NewUsage(fmt.Errorf("--drain-timeout %v leaves no time to drain", drain), "give a duration such as 30s")
	}
	accepted, acceptErr := acceptGap(c)
	interval, keep, historyErr := history(c)
	window, windowErr := pipeline.ParseWindow(c.String("replay-window"))
	config := pipeline.Config{
		ReplayWindow:    window,
		Wal:             source,
		AcceptGap:       accepted,
		HistoryInterval: interval,
		HistoryKeep:     keep,
		MarkSent:        c.String("mark-sent"),
		DeleteSent:      c.Bool("delete-sent"),
		Sink:            url,
		SinkOptions:     sink.Options{CreateTopics: c.Bool("create-topics")},
		Outbox:          mapping,
		Checkpoint:      c.String("checkpoint"),
		DrainTimeout:    drain,
	}
	policyErr := onError(c, &config)
	return config, errors.Join(sourceErr, sinkErr, mappingErr, drainErr, acceptErr, windowErr, policyErr, historyErr)
}

// openLog reads logFlags and makes the logger of the run.
func (p *program) openLog(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	var levelErr, formatErr error
	if err := level.UnmarshalText([]byte(stringOf(c, "log-level", "info"))); err != nil {
		levelErr = fault.NewUsage(errors.New("--log-level is not a level"), "use debug, info, warn or error")
	}
	options := &slog.HandlerOptions{Level: level}
	logger := slog.New(slog.NewTextHandler(p.err, options))
	switch stringOf(c, "log-format", "text") {
	case "text":
	case "json":
		logger = slog.New(slog.NewJSONHandler(p.err, options))
		p.logger = logger
	default:
		formatErr = fault.NewUsage(errors.New("--log-format is not a format"), "use text or json")
	}
	return logger, errors.Join(levelErr, formatErr)
}

// httpAddress reads --http; it is empty when there is to be no listener.
func httpAddress(c *cli.Context) (string, error) {
	address := stringOf(c, "http", defaultHTTP)
	if address == "off" {
		return "", nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", fault.NewUsage(errors.New("--http is not an address"),
			"write host:port such as "+defaultHTTP+", :port for all interfaces, or off")
	}
	return address, nil
}

func checkpointFlag() cli.Flag {
	return text("checkpoint", pipeline.DefaultCheckpoint, "where positions are saved, a `URL`: database, file:///path, kafka://host:9092/topic or memory://")
}

// positionConfig reads databaseFlags and checkpointFlag, for commands that look at what
// is saved and send nothing.
func positionConfig(c *cli.Context) (pipeline.Config, error) {
	source, err := walConfig(c)
	url := c.String("checkpoint")
	return pipeline.Config{Wal: source, Checkpoint: url}, errors.Join(err, checkpoint.CheckURL(url), source.Validate())
}
