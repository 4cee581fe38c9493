package debezium

import (
	"regexp"
	"slices"
	"strings"
)

// A call at the beginning of a DEFAULT, and the first literal in one, as Debezium looks
// for them (PostgresDefaultValueConverter.java).
var (
	defaultCall    = regexp.MustCompile(`^\(?[A-Za-z0-9_.]+\(.*\)`)
	defaultLiteral = regexp.MustCompile(`'(.*?)'`)
)

// moments are what stands for the time without parentheses.
func moments() []string {
	return []string{"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP"}
}

// defaultText gives the value that Debezium takes for a column's DEFAULT, as a text of
// its type; false where it takes none. What is no constant has a stand-in for each
// type, such as 0 or the beginning of 1970; a constant is what is between the first two
// quotes, though the literal may go on behind them. Both are odd, and both are what its
// consumers are sent in the place of null.
func defaultText(c *Column) (text string, ok bool) {
	expression := strings.TrimSpace(c.Default)
	switch {
	case expression == "" || expression == "NULL" || strings.HasPrefix(expression, "NULL::"):
		return "", false
	case c.Domain || c.Type == "bytea" || c.Type == "money" || strings.HasPrefix(c.Type, "_") || c.Type == "numeric" && c.Mod < 0:
		return "", false // types for which it has no parser
	case defaultCall.MatchString(expression):
		return standIn(c)
	}
	if literal := defaultLiteral.FindStringSubmatch(expression); literal != nil {
		return literal[1], true
	}
	if slices.Contains(moments(), expression) {
		if text, ok := standIn(c); ok && text != "" {
			return text, true
		}
	}
	return expression, true
}

// standIn is what a DEFAULT that is computed is taken for.
func standIn(c *Column) (text string, ok bool) {
	switch c.Type {
	case "int2", "int4", "int8", "float4", "float8", "numeric":
		return "0", true
	case "bool":
		return "f", true
	case "text", "varchar", "bpchar":
		return "", c.Labels == nil
	case "json", "jsonb":
		return "{}", true
	case "uuid":
		return "00000000-0000-0000-0000-000000000000", true
	case "timestamp", "date":
		return "1970-01-01", true
	case "timestamptz":
		return "1970-01-01 00:00:00+00", true
	case "time":
		return "00:00:00", true
	case "timetz":
		return "00:00:00+00", true
	default:
		return "", false
	}
}
