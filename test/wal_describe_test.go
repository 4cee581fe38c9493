package test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestDescribeSaysWhatTheLogDoesNot(t *testing.T) {
	t.Parallel()
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.run(t,
		"create type mood as enum ('low', 'Very High')",
		"create domain cents as numeric(12,2) not null", "create domain price as cents",
		`create table described (id uuid primary key default gen_random_uuid(), "Mood" mood, amount price,
			name varchar(10) default 'it''s', upper text generated always as (upper(name)) stored, tags text[])`)
	got, err := f.connect(t, f.config).Describe(walContext(t), "public", "described")
	if err != nil {
		t.Fatal(err)
	}
	want := []wal.ColumnFacts{
		{Name: "id", Type: "uuid", Modifier: -1, NotNull: true, Default: "gen_random_uuid()"},
		{Name: "Mood", Type: "mood", Modifier: -1, Labels: []string{"low", "Very High"}},
		{Name: "amount", Type: "numeric", Modifier: 12<<16 + 2 + 4, Domain: true, NotNull: true},
		{Name: "name", Type: "varchar", Modifier: 14, Default: "'it''s'::character varying"},
		{Name: "upper", Type: "text", Modifier: -1},
		{Name: "tags", Type: "_text", Modifier: -1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if none, err := f.connect(t, f.config).Describe(walContext(t), "public", "nosuch"); err != nil || len(none) > 0 {
		t.Errorf("a table that does not exist gives %v, %v", none, err)
	}
}
