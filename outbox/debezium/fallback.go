package debezium

import "strings"

// parseDefault reads the constant that a DEFAULT's expression is, as pg_get_expr
// prints it, such as 1, true, 'x'::text or '-1'::integer. It gives false for
// anything else: a function call, a sequence, NULL. Debezium does not know those
// either.
func parseDefault(expression string) (text string, constant bool) {
	rest := expression
	for strings.HasPrefix(rest, "(") && strings.HasSuffix(rest, ")") {
		rest = rest[1 : len(rest)-1]
	}
	switch {
	case strings.HasPrefix(rest, "'"):
		text, rest, constant = cutQuoted(rest[1:], false)
	case strings.HasPrefix(rest, "E'"):
		text, rest, constant = cutQuoted(rest[2:], true)
	default:
		text, rest, _ = strings.Cut(rest, "::")
		text = strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
		return text, isLiteral(text) && isCast(rest)
	}
	cast, found := strings.CutPrefix(rest, "::")
	return text, constant && (rest == "" || found && isCast(cast))
}

// cutQuoted gives the text up to the closing quote and what is behind it. With
// escapes a backslash doubles as in E'…', which is the only escape that the server
// prints.
func cutQuoted(rest string, escapes bool) (text, after string, closed bool) {
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\'' && strings.HasPrefix(rest[i+1:], "'"), c == '\\' && escapes && i+1 < len(rest):
			i++
			b.WriteByte(rest[i])
		case c == '\'':
			return b.String(), rest[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// isLiteral says whether an expression without quotes is a number or a boolean.
func isLiteral(text string) bool {
	if text == "true" || text == "false" {
		return true
	}
	digits := strings.TrimPrefix(text, "-")
	return digits != "" && strings.Trim(digits, "0123456789.") == ""
}

// isCast says whether what follows :: names a type and nothing more.
func isCast(text string) bool {
	return !strings.ContainsAny(text, "|+*/'") && !strings.Contains(text, "::")
}
