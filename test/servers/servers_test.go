package servers_test

import (
	"context"
	"testing"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// setting asks the server for one of its settings.
func setting(tb testing.TB, p *servers.PostgresServer, name string) string {
	tb.Helper()
	var value string
	err := p.Conn(tb, "postgres").QueryRow(context.Background(), "select current_setting($1)", name).Scan(&value)
	if err != nil {
		tb.Fatal(err)
	}
	return value
}
