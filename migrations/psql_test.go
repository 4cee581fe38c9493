package migrations

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestVariablesAreFilledInAsPsqlDoes(t *testing.T) {
	values := map[string]string{
		"plain": "outbox",
		"odd":   `o'ut"b\ox:é`,
		"empty": "",
		"s_1":   "$$",
	}
	// Compared with what psql 15 sends: psql -e shows it.
	for sql, want := range map[string]string{
		``:                                  ``,
		`SELECT :'plain'`:                   `SELECT 'outbox'`,
		`SELECT :"plain"`:                   `SELECT "outbox"`,
		`SELECT :'empty', :"s_1"`:           `SELECT '', "$$"`,
		`SELECT :'odd'`:                     `SELECT  E'o''ut"b\\ox:é'`,
		`SELECT :"odd"`:                     `SELECT "o'ut""b\ox:é"`,
		`(:'plain',:'plain')`:               `('outbox','outbox')`,
		`:"plain".:"plain"`:                 `"outbox"."outbox"`,
		`:'plain'::text`:                    `'outbox'::text`,
		`1::int, x := 2, a[1: 2]`:           `1::int, x := 2, a[1: 2]`,
		`':''plain''' :'plain'`:             `':''plain''' 'outbox'`,
		`'a'':"plain"'`:                     `'a'':"plain"'`,
		`"a:'plain'""b"`:                    `"a:'plain'""b"`,
		`E'\':\'plain\'' :'plain'`:          `E'\':\'plain\'' 'outbox'`,
		`e'\\' :'plain'`:                    `e'\\' 'outbox'`,
		"E'a'\n '\\':''plain'":              "E'a'\n '\\':''plain'",
		"E'a' -- '\n '\\':'":                "E'a' -- '\n '\\':'",
		"E'a' '\\' :'plain'":                "E'a' '\\' 'outbox'",
		`N'\' :'plain'`:                     `N'\' 'outbox'`,
		`'\' :'plain'`:                      `'\' 'outbox'`,
		`typeE'\' :'plain'`:                 `typeE'\' 'outbox'`,
		`-- :'plain' it's` + "\n:'plain'":   `-- :'plain' it's` + "\n'outbox'",
		`/* :'plain' /* ' */ " */ :'plain'`: `/* :'plain' /* ' */ " */ 'outbox'`,
		`1 */* :'plain' */ 2`:               `1 */* :'plain' */ 2`,
		`DO $$ :'plain' ' $a$ $$; :'plain'`: `DO $$ :'plain' ' $a$ $$; 'outbox'`,
		`$a$ $$ :'plain' $a$ :'plain'`:      `$a$ $$ :'plain' $a$ 'outbox'`,
		`a$b$c :'plain'`:                    `a$b$c 'outbox'`,
		`$1 $ $2 :'plain'`:                  `$1 $ $2 'outbox'`,
		`$é$ :'plain' $é$`:                  `$é$ :'plain' $é$`,
	} {
		got, err := substitute(sql, values)
		if err != nil {
			t.Errorf("substitute(%q) = %v, want %q", sql, err, want)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("substitute(%q) (-want +got):\n%s", sql, diff)
		}
	}
}

func TestWhatPsqlWouldGuessIsRefused(t *testing.T) {
	values := map[string]string{"plain": "outbox", "broken": "\xff", "zero": "a\x00b"}
	for sql, want := range map[string]string{
		`:plain`:               "unquoted",
		`a[1:2]`:               "unquoted",
		`:{?plain}`:            "unquoted",
		`:'other'`:             "variable other has no value",
		`:'two words'`:         "no name",
		`:''`:                  "no name",
		`:'plain`:              "no name",
		`:'plain"`:             "no name",
		`E:'plain'`:            "touches",
		`U&:"plain"`:           "touches",
		`'a':'plain'`:          "touches",
		`:'plain''b'`:          "touches",
		`:"plain":"plain"`:     "touches",
		`\connect x`:           "psql command",
		`'open`:                "without its pair",
		`"open`:                "without its pair",
		`E'open\'`:             "without its pair",
		"E'a'\n'open":          "without its pair",
		`/* /* */`:             "without an end",
		`/*/`:                  "without an end",
		`$a$ $b$`:              "without its end",
		`:'broken'`:            "not UTF-8",
		`:"zero"`:              "zero byte",
		"SELECT 1;\n\n :plain": "line 3",
	} {
		got, err := substitute(sql, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("substitute(%q) = %q, %v, want an error with %q", sql, got, err, want)
		}
	}
}

// A value can never end the quotes that it stands in: what comes out has no
// variable left and is read, token for token, like what went in.
func FuzzNoValueEscapesItsQuotes(f *testing.F) {
	f.Add(`SELECT :'v', :"v" FROM $$ :'v' $$ -- x`, `o'u"t\`)
	f.Add(`E'\'' :'v' /* /* */ */ ::text`, `'; DROP TABLE x; --`)
	f.Add("E'a'\n'\\'' :\"v\"", `$$`)
	f.Add(`:'v'`, `\`)
	f.Add(`$a$b$a$:'v'`, "\n'")
	f.Fuzz(func(t *testing.T, sql, value string) {
		values := map[string]string{"v": value}
		filled, err := substitute(sql, values)
		if err != nil {
			return
		}
		again, err := substitute(filled, nil)
		if err != nil || again != filled {
			t.Fatalf("substitute(%q) with %q gave %q, which reads as %q, %v", sql, value, filled, again, err)
		}
		if harmless, err := substitute(sql, map[string]string{"v": "x"}); err != nil || shape(t, harmless) != shape(t, filled) {
			t.Fatalf("%q with %q gave %q, whose tokens differ from those of %q", sql, value, filled, harmless)
		}
		if utf8.ValidString(sql) && !utf8.ValidString(filled) {
			t.Fatalf("%q with %q gave %q, which is not UTF-8", sql, value, filled)
		}
	})
}

// shape is the kinds of tokens of sql without what stands in them.
func shape(tb testing.TB, sql string) string {
	tb.Helper()
	var kinds []byte
	for at := 0; at < len(sql); {
		n, err := token(sql[at:])
		if err != nil {
			tb.Fatalf("token(%q) = %v", sql[at:], err)
		}
		kind := sql[at]
		if kind == ' ' {
			at += n
			continue
		}
		if strings.HasPrefix(sql[at:at+n], "E'") {
			kind = '\''
		}
		// A doubled quote reads as two texts without anything between.
		for kind == sql[at] && (kind == '\'' || kind == '"') && at+n < len(sql) && sql[at+n] == kind {
			more, err := token(sql[at+n:])
			if err != nil {
				tb.Fatalf("token(%q) = %v", sql[at+n:], err)
			}
			n += more
		}
		kinds = append(kinds, kind)
		at += n
	}
	return string(kinds)
}
