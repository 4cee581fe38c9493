package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestTablesAreNamedAsInSQL(t *testing.T) {
	for text, want := range map[string][]wal.Table{
		`public.outbox`:           {{Schema: "public", Name: "outbox"}},
		`Sales.OutBox`:            {{Schema: "sales", Name: "outbox"}},
		`sales."OutBox"`:          {{Schema: "sales", Name: "OutBox"}},
		`"a.b"."c,""d"`:           {{Schema: "a.b", Name: `c,"d`}},
		`ÄB.o$1`:                  {{Schema: "Äb", Name: "o$1"}},
		" a . b ,\n\"c\".d ":      {{Schema: "a", Name: "b"}, {Schema: "c", Name: "d"}},
		`a.b,a.c`:                 {{Schema: "a", Name: "b"}, {Schema: "a", Name: "c"}},
		`"drop table x;".outbox_`: {{Schema: "drop table x;", Name: "outbox_"}},
	} {
		got, err := parseTables([]string{text})
		if err != nil {
			t.Errorf("parseTables(%q) = %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parseTables(%q) (-want +got):\n%s", text, diff)
		}
	}
}

func TestEveryBadTableIsReported(t *testing.T) {
	bad := []string{
		``, `outbox`, `a.b.c`, `a.`, `.b`, `a.b,`, `,a.b`, `a b.c`, `"a.b`, `a."b`, `a.b c.d`, `my-schema.outbox`,
		`1a.b`, `"".b`, `a.""`, `a.b;`,
	}
	_, err := parseTables(bad)
	if got := fault.Classify(err); got != fault.Usage {
		t.Fatalf("class %v of %v, want usage", got, err)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != len(bad) {
		t.Errorf("want %d problems, got:\n%v", len(bad), err)
	}
}
