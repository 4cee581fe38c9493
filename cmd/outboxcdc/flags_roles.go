package main

import (
	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/migrations"
)

// roleFlags are those of init that say who may what.
func roleFlags() []cli.Flag {
	return []cli.Flag{
		text("role", "", "make the role `NAME` that streams, without a password, and grant it what it needs and no more"),
		&cli.StringSliceFlag{
			Name: "writer-role", EnvVars: []string{twin("writer-role")},
			Usage: "make the role `NAME` of a service, without a password, and grant it INSERT on the outbox tables; repeat it or separate by commas",
		},
	}
}

func rolesOf(c *cli.Context) migrations.Roles {
	return migrations.Roles{Stream: c.String("role"), Insert: c.StringSlice("writer-role")}
}
