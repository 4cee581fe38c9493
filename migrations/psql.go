package migrations

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// substitute puts values in place of the psql variables :'name' (a literal) and
// :"name" (an identifier) in sql, quoted as psql quotes them, so that one text
// serves psql and us.
//
// It finds the tokens that psql finds (psqlscan.l): nothing is a variable inside a
// string, a quoted identifier, a dollar quote or a comment, and :: is a cast. Where
// psql would guess, it refuses: an unquoted variable, which would be pasted as it
// is; a variable without a value; one that touches a word or another quote, which
// would swallow it; a psql command. It assumes standard_conforming_strings, which
// Apply and Render switch on.
func substitute(sql string, values map[string]string) (string, error) {
	var out strings.Builder
	for at := 0; at < len(sql); {
		var n int
		var err error
		if variableAt(sql, at) {
			n, err = putVariable(&out, sql, at, values)
		} else if n, err = token(sql[at:]); err == nil {
			out.WriteString(sql[at : at+n])
		}
		if err != nil {
			return "", fmt.Errorf("line %d: %w", 1+strings.Count(sql[:at], "\n"), err)
		}
		at += n
	}
	return out.String(), nil
}

// usesVariable says whether sql holds the variable in either quoting. It may stand
// in a comment: that only makes a file one that runs for each table.
func usesVariable(sql, name string) bool {
	return strings.Contains(sql, `:"`+name+`"`) || strings.Contains(sql, `:'`+name+`'`)
}

// variableAt says whether a token that begins at the colon sql[at] is a variable
// to psql, as :=, :: and a colon before anything else are not.
func variableAt(sql string, at int) bool {
	if sql[at] != ':' || at+1 == len(sql) {
		return false
	}
	next := sql[at+1]
	return next == '\'' || next == '"' || next == '{' || variableByte(next)
}

// putVariable writes the value of the variable at sql[at] and gives the length of
// the variable.
func putVariable(out *strings.Builder, sql string, at int, values map[string]string) (int, error) {
	quote := sql[at+1]
	if quote != '\'' && quote != '"' {
		return 0, errors.New(`an unquoted variable: write :'name' or :"name"`)
	}
	length := 0
	for at+2+length < len(sql) && variableByte(sql[at+2+length]) {
		length++
	}
	end := at + 2 + length
	if length == 0 || end == len(sql) || sql[end] != quote {
		return 0, errors.New("a colon before a quoted text that is no name of a variable")
	}
	if touches(sql, at, end+1) {
		return 0, errors.New("a variable that touches a word or a quote: put a space between them")
	}
	name := sql[at+2 : end]
	value, ok := values[name]
	if !ok {
		return 0, fmt.Errorf("variable %s has no value", name)
	}
	if err := checkText(value); err != nil {
		return 0, fmt.Errorf("the value of variable %s %w", name, err)
	}
	if quote == '"' {
		out.WriteString(quoteIdentifier(value))
	} else {
		out.WriteString(quoteLiteral(value))
	}
	return end + 1 - at, nil
}

// touches says whether what a variable in sql[start:end] becomes would grow
// together with its neighbours: E'…', U&"…", 'a”b'.
func touches(sql string, start, end int) bool {
	if start > 0 {
		before := sql[start-1]
		if variableByte(before) || strings.IndexByte(`$&'":`, before) >= 0 {
			return true
		}
	}
	return end < len(sql) && (sql[end] == '\'' || sql[end] == '"')
}

// checkText refuses what Postgres cannot hold: with a foreign encoding a quote may
// hide in a broken character.
func checkText(value string) error {
	switch {
	case !utf8.ValidString(value):
		return errors.New("is not UTF-8")
	case strings.ContainsRune(value, 0):
		return errors.New("holds a zero byte")
	default:
		return nil
	}
}

func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral quotes as PQescapeLiteral does: with a backslash in it the text
// becomes an escape string, which reads the same whatever
// standard_conforming_strings is. The space keeps the E away from a word before it.
func quoteLiteral(text string) string {
	quoted := `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
	if !strings.Contains(text, `\`) {
		return quoted
	}
	return ` E` + strings.ReplaceAll(quoted, `\`, `\\`)
}

// token gives the length of the token at the beginning of s: enough of SQL to know
// where a colon is not a variable.
func token(s string) (int, error) {
	switch {
	case strings.HasPrefix(s, "--"):
		return lineLength(s), nil
	case strings.HasPrefix(s, "/*"):
		return commentLength(s)
	case strings.HasPrefix(s, "::"), strings.HasPrefix(s, ":="):
		return 2, nil
	case s[0] == '\\':
		return 0, errors.New("a psql command: only SQL can be run here")
	case s[0] == '\'', s[0] == '"':
		return quotedLength(s, s[0])
	case s[0] == '$':
		return dollarLength(s)
	case wordStart(s[0]):
		return wordLength(s)
	default:
		return 1, nil
	}
}

func lineLength(s string) int {
	if n := strings.IndexAny(s, "\r\n"); n >= 0 {
		return n
	}
	return len(s)
}

// commentLength measures a block comment; they nest.
func commentLength(s string) (int, error) {
	depth := 0
	for at := 0; at+1 < len(s); at++ {
		switch s[at : at+2] {
		case "/*":
			depth++
			at++
		case "*/":
			depth--
			at++
		}
		if depth == 0 {
			return at + 1, nil
		}
	}
	return 0, errors.New("a comment without an end")
}

// quotedLength measures a text between two of quote, which stands for itself when
// doubled. A doubled one reads here as the end of one text and the beginning of
// the next, which comes to the same.
func quotedLength(s string, quote byte) (int, error) {
	if end := strings.IndexByte(s[1:], quote); end >= 0 {
		return end + 2, nil
	}
	return 0, fmt.Errorf("a %c without its pair", quote)
}

// dollarLength measures a dollar quote, or a dollar and its digits: $1 is a
// parameter.
func dollarLength(s string) (int, error) {
	n := 1
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	if n > 1 {
		return n, nil
	}
	for n < len(s) && variableByte(s[n]) {
		n++
	}
	if n == len(s) || s[n] != '$' {
		return 1, nil
	}
	tag := s[:n+1]
	end := strings.Index(s[len(tag):], tag)
	if end < 0 {
		return 0, fmt.Errorf("a dollar quote %s without its end", tag)
	}
	return end + 2*len(tag), nil
}

// wordLength measures a keyword or an identifier; a dollar in it begins no quote.
// A word that is only E begins an escape string when a quote follows.
func wordLength(s string) (int, error) {
	n := 0
	for n < len(s) && (variableByte(s[n]) || s[n] == '$') {
		n++
	}
	if n == 1 && (s[0] == 'e' || s[0] == 'E') && len(s) > 1 && s[1] == '\'' {
		return escapeLength(s)
	}
	return n, nil
}

// escapeLength measures E'…', where a backslash makes the next byte harmless, with
// the parts that continue it on other lines: they are escape strings too.
func escapeLength(s string) (int, error) {
	for at := 2; at < len(s); at++ {
		if s[at] == '\\' {
			at++
			continue
		}
		if s[at] != '\'' {
			continue
		}
		next := continuation(s[at+1:])
		if next < 0 {
			return at + 1, nil
		}
		at += 1 + next
	}
	return 0, errors.New("a ' without its pair")
}

// continuation gives where the quote stands that goes on with the string that has
// just ended: at once, which is a doubled quote, or after white space and line
// comments with a line end among them. It gives -1 when the string is over.
func continuation(s string) int {
	newline := false
	for at := 0; at < len(s); {
		switch {
		case s[at] == '\'' && (at == 0 || newline):
			return at
		case s[at] == '\n' || s[at] == '\r':
			newline = true
			at++
		case strings.IndexByte(" \t\f\v", s[at]) >= 0:
			at++
		case strings.HasPrefix(s[at:], "--"):
			at += lineLength(s[at:])
		default:
			return -1
		}
	}
	return -1
}

// variableByte is what psql takes for part of a variable's name, and Postgres for
// part of a word but for the dollar.
func variableByte(c byte) bool { return wordStart(c) || isDigit(c) }

func wordStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
