package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/migrations"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make what streaming needs in the database",
		Description: `Makes the outbox tables, the table of saved positions, the publication and the
slot, each unless it is there, and says so. It may run again. A table of your own
with the columns aggregate_type, aggregate_id, event_type and payload is left as it
is.

The role of --database-url needs CREATE on the database and on the schemas of the
tables, the ownership of tables that exist, and REPLICATION. Give the output of
--print-sql to an administrator when it has not.

With --role it also makes the role that streams, and with --writer-role those of
services that insert, each unless it is there, and grants them what they need and no
more, which docs/security.md lists. It sets no password: do that with \password in
psql, or let them in by certificate. This needs CREATEROLE.

Examples:

   outboxcdc init --slot orders --database-url postgres://admin@db/shop
   outboxcdc init --slot orders --role cdc --writer-role shop --database-url postgres://admin@db/shop
   outboxcdc init --slot orders --table sales.outbox --print-sql | psql shop

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), roleFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "print-sql", EnvVars: []string{twin("print-sql")}, Usage: "print the SQL for an administrator and change nothing"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.init,
	}
}

func (p *program) init(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := walConfig(c)
	config.Logger = logger
	mapping, mappingErr := outboxConfig(c, config.Tables)
	plan, planErr := outbox.NewPlan(mapping, config.Tables)
	if err := errors.Join(flagErr, mappingErr, planErr, config.Validate(), logErr); err != nil {
		return err
	}
	config.Tables = plan.Tables()
	roles := rolesOf(c)
	if c.Bool("print-sql") {
		return p.printSQL(config, roles)
	}
	// Names that cannot be are told before anything is made.
	if _, err := migrations.RenderRoles(migrationParams(config), roles); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	if err := p.makeAll(ctx, config); err != nil {
		return interrupted(ctx, err)
	}
	return interrupted(ctx, p.makeRoles(ctx, config, roles))
}

// printSQL prints what makeAll would do on a database without anything.
func (p *program) printSQL(config wal.Config, roles migrations.Roles) error {
	sql, err := migrations.Render(migrationParams(config))
	if err != nil {
		return err
	}
	grants, err := migrations.RenderRoles(migrationParams(config), roles)
	if err != nil {
		return err
	}
	if grants != "" {
		grants = "\n-- Who may what. Passwords are yours to set, with \\password.\n" + grants
	}
	_, err = fmt.Fprintf(p.out, "%s\n-- The publication, and then the slot, which reads with it from here on.\n%s"+
		"\n-- What the slot streams.\n%s%s", sql, wal.SetupSQL(config), wal.RegisterSQL(config), grants)
	return err
}

// makeRoles is for tables that are there.
func (p *program) makeRoles(ctx context.Context, config wal.Config, roles migrations.Roles) error {
	if roles.Stream == "" && len(roles.Insert) == 0 {
		return nil
	}
	conn, err := openDatabase(ctx, config.Database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	made, err := migrations.MakeRoles(ctx, conn, migrationParams(config), roles)
	for _, what := range made {
		p.say(true, what)
	}
	if err == nil && len(made) == 0 {
		p.say(false, "roles and what they may")
	}
	return err
}

func migrationParams(config wal.Config) migrations.Params {
	var params migrations.Params
	for _, t := range config.Tables {
		params.Tables = append(params.Tables, migrations.Table{Schema: t.Schema, Name: t.Name})
	}
	return params
}

// makeAll makes the publication before the slot: a slot decodes its log with the
// publication of that time.
func (p *program) makeAll(ctx context.Context, config wal.Config) error {
	if err := p.migrate(ctx, config); err != nil {
		return err
	}
	conn, err := wal.Connect(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	made, err := conn.CreatePublication(ctx)
	if err != nil {
		return err
	}
	p.say(made, "publication "+config.Publication)
	findings, err := wal.Preflight(ctx, conn)
	if err != nil {
		return err
	}
	missing := func(f fault.Finding) bool { return f.Code == wal.CodeSlotMissing }
	if err := fault.Failures(slices.DeleteFunc(findings, missing)); err != nil {
		return err
	}
	slot, there, err := conn.Slot(ctx)
	if err != nil {
		return err
	}
	if !there {
		if slot.Confirmed, err = conn.CreateSlot(ctx); err != nil {
			return err
		}
	}
	p.say(!there, fmt.Sprintf("slot %s at %v", config.Slot, slot.Confirmed))
	_, err = conn.Register(ctx, !there)
	return err
}

func (p *program) migrate(ctx context.Context, config wal.Config) error {
	conn, err := openDatabase(ctx, config.Database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	applied, err := migrations.Apply(ctx, conn, migrationParams(config))
	for _, name := range applied {
		p.say(true, "migration "+name)
	}
	if err != nil {
		return wal.Fault(err)
	}
	if len(applied) == 0 {
		p.say(false, "tables")
	}
	return nil
}

// openDatabase opens an ordinary connection to the primary.
func openDatabase(ctx context.Context, url string) (*pgx.Conn, error) {
	settings, err := wal.ParseDatabase(url)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, wal.Fault(err)
	}
	config.Config = *settings
	config.RuntimeParams["application_name"] = "outboxcdc init"
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.ValidateConnect == nil {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	return conn, wal.Fault(err)
}

const connectTimeout = 10 * time.Second // for each host

// say tells what was made and what was there already.
func (p *program) say(made bool, what string) {
	verb := "was there"
	if made {
		verb = "made"
	}
	fmt.Fprintf(p.out, "%-9s %s\n", verb, what) //nolint:errcheck // the work is done, whoever hears of it
}
