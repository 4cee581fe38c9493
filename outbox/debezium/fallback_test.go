package debezium

import "testing"

// TestDefaultsAreWhatDebeziumTakesThemFor holds what a run of Debezium 3.6.1 gave for
// columns with these DEFAULTs, in the schemas of an envelope.
func TestDefaultsAreWhatDebeziumTakesThemFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ typeName, expression, want string }{
		{"int4", "7", "7"},
		{"int4", "'-5'::integer", "-5"},
		{"timestamp", "'2020-02-03 04:05:06'::timestamp without time zone", "1580702706000000"},
		{"text", "'it''s'::text", `"it"`},
		{"varchar", "('a'::text || 'b'::text)", `"a"`},
		{"text", "md5('x'::text)", `""`},
		{"text", "CURRENT_USER", `"CURRENT_USER"`},
		{"text", "''::text", `""`},
		{"text", "NULL::text", "none"},
		{"int4", "((random() * (10)::double precision))::integer", "none"},
		{"int8", "nextval('sq'::regclass)", "0"},
		{"uuid", "gen_random_uuid()", `"00000000-0000-0000-0000-000000000000"`},
		{"timestamp", "now()", "0"},
		{"timestamp", "LOCALTIMESTAMP", "0"},
		{"timestamptz", "CURRENT_TIMESTAMP", `"1970-01-01T00:00:00.000000Z"`},
		{"timestamptz", "(now() AT TIME ZONE 'utc'::text)", `"1970-01-01T00:00:00.000000Z"`},
		{"timestamptz", "'2020-01-01 00:00:00+02'::timestamp with time zone", `"2019-12-31T22:00:00.000000Z"`},
		{"date", "CURRENT_DATE", "0"},
		{"date", "now()", "0"},
		{"time", "LOCALTIME", "0"},
		{"bool", "(random() > (0.5)::double precision)", "false"},
		{"bool", "true", "true"},
		{"jsonb", "jsonb_build_object('a', 1)", `"{}"`},
		{"float8", "random()", "0.0"},
		{"float4", "1.5", "1.5"},
		{"interval", "'1 day'::interval", "86400000000"},
		{"bytea", `'\xdead'::bytea`, "none"},
		{"numeric", "'10'::numeric", "none"},
		{"money", "'$5.00'::money", "none"},
		{"_text", "'{}'::text[]", "none"},
	} {
		o := DefaultOptions("")
		made, err := codecFor(Column{Name: "c", Type: test.typeName, Mod: -1, Default: test.expression}, &o)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if made.schema.fallback != nil {
			got = string(appendJSON(nil, made.schema, made.schema.fallback))
		}
		if got != test.want {
			t.Errorf("%s DEFAULT %s: %s, want %s", test.typeName, test.expression, got, test.want)
		}
	}
}
