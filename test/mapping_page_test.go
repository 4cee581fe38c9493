package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// placeOrder stores an order and its event, both or neither.
func placeOrder(ctx context.Context, conn *pgx.Conn, id int64, total string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1, $2)", id, total); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT outboxcdc.publish('order', $1, 'OrderPlaced', $2)",
			strconv.FormatInt(id, 10), map[string]any{"total": total})
		return err
	})
}

const mappingPage = "../docs/mapping.md"

// TestTheMappingPageRunsAsPrinted runs its SQL in a new database, the Go function as it
// is printed, and the statements of Python and Java, and looks at what a stream would
// find in the log.
func TestTheMappingPageRunsAsPrinted(t *testing.T) {
	t.Parallel()
	db := servers.SharedPostgres(t)
	l := &line{db: db, slot: walName("page"), sql: db.Server.Conn(t, db.Name)}
	flags := []string{"--slot", l.slot, "--database-url", db.URL, "--message-prefix", "outboxcdc"}
	mustRun(t, append([]string{"init"}, flags...)...)
	t.Cleanup(func() { l.exec(t, "drop owned by shop; drop role shop") })
	for _, sql := range blocks(t, mappingPage, "sql") {
		l.exec(t, sql)
	}
	source, err := os.ReadFile("mapping_page_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if snippet := blocks(t, mappingPage, "go")[0]; !strings.Contains(string(source), snippet) {
		t.Errorf("the function that this test calls is not the one that the page prints:\n%s", snippet)
	}
	if err := placeOrder(walContext(t), l.sql, 43, "1.50"); err != nil {
		t.Fatal(err)
	}
	statementsOf(t, l, "python", 44)
	statementsOf(t, l, "java", 45)
	eventsWait(t, flags)
	commandsOfThePageParse(t, db)
	if out, _ := outboxcdc(t, append([]string{"check", "--json", "--sink", "stdout://"}, flags...)...); strings.Contains(out, wal.CodeMessagesGrant) {
		t.Errorf("everybody may still write messages:\n%s", out)
	}
}

// statementsOf runs the statements of a function that places an order.
func statementsOf(t *testing.T, l *line, language string, id int64) {
	t.Helper()
	statements := regexp.MustCompile(`"((?:INSERT|SELECT) [^"]*)"`).FindAllStringSubmatch(blocks(t, mappingPage, language)[0], -1)
	if len(statements) != 2 {
		t.Fatalf("%d statements in %s, want 2", len(statements), language)
	}
	args := [][]any{{id, "1.50"}, {strconv.FormatInt(id, 10), `{"total": "1.50"}`}}
	for i, m := range statements {
		n := 0
		sql := regexp.MustCompile(`%s|\?`).ReplaceAllStringFunc(m[1], func(string) string { n++; return fmt.Sprint("$", n) })
		l.exec(t, sql, args[i]...)
	}
}

// eventsWait wants each event of the page in the log, in its order, and able to be sent.
func eventsWait(t *testing.T, flags []string) {
	t.Helper()
	var got []string
	for text := range strings.Lines(mustRun(t, append([]string{"peek", "--json"}, flags...)...)) {
		var row struct {
			Table, Problem string
			Columns        []struct{ Name, Value string }
		}
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		event := row.Problem
		for _, c := range row.Columns {
			if c.Name == "event_type" {
				event += c.Value
			}
		}
		got = append(got, row.Table+" "+event)
	}
	want := []string{"public.outbox OrderPlaced", "public.outbox OrderPaid", "logical.message ", "public.outbox OrderPlaced", "public.outbox OrderPlaced", "public.outbox OrderPlaced"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events that wait (-want +got):\n%s", diff)
	}
}

// commandsOfThePageParse wants no mistake in the flags, nor in the columns of the table
// that the page makes.
func commandsOfThePageParse(t *testing.T, db *servers.Database) {
	t.Helper()
	commands := blocks(t, mappingPage, "sh")
	if len(commands) != 2 {
		t.Errorf("%d blocks of commands, want 2", len(commands))
	}
	for _, text := range commands {
		args := strings.Fields(strings.NewReplacer("\\\n", " ", "'", "").Replace(text))
		args = append(slices.Concat([]string{"check"}, args[2:]), "--json", "--database-url", db.URL, "--sink", "stdout://")
		if out, status := outboxcdc(t, args...); status == fault.ExitUsage || strings.Contains(out, `"code": "column.`) {
			t.Errorf("%s: status %d\n%s", text, status, out)
		}
	}
}
