package main

import (
	"html"
	"strings"
	"unicode"

	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/util"
)

// shapes render what the pages want in another way than goldmark has it: wide things
// scroll by themselves, also with the keyboard, and headings can be linked to.
type shapes struct{}

// RegisterFuncs names the kinds of nodes that shapes renders.
func (shapes) RegisterFuncs(to renderer.NodeRendererFuncRegisterer) {
	to.Register(ast.KindHeading, heading)
	to.Register(ast.KindFencedCodeBlock, code)
	to.Register(ast.KindCodeBlock, code)
	to.Register(ast.KindCodeSpan, codeSpan)
	to.Register(east.KindTable, table)
	to.Register(east.KindTableHeader, tableHeader)
}

func heading(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	level := byte('0' + n.(*ast.Heading).Level) //nolint:forcetypeassert // registered for this kind
	value, _ := n.AttributeString("id")
	id, _ := value.([]byte)
	if entering {
		put(w, "<h", string(level), ` id="`, html.EscapeString(string(id)), `">`)
		return ast.WalkContinue, nil
	}
	if level > '1' {
		put(w, ` <a class="anchor" href="#`, html.EscapeString(string(id)), `" aria-label="link to this section">#</a>`)
	}
	put(w, "</h", string(level), ">\n")
	return ast.WalkContinue, nil
}

func code(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		put(w, "</code></pre>\n")
		return ast.WalkContinue, nil
	}
	put(w, `<pre tabindex="0"><code>`)
	for i := range n.Lines().Len() {
		line := n.Lines().At(i)
		put(w, html.EscapeString(string(line.Value(source))))
	}
	return ast.WalkContinue, nil
}

// codeSpan lets a long name in a table go on in the next line, between two of its words.
func codeSpan(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		put(w, "</code>")
		return ast.WalkContinue, nil
	}
	_, inTable := n.Parent().(*east.TableCell)
	put(w, "<code>")
	for part := n.FirstChild(); part != nil; part = part.NextSibling() {
		text := strings.ReplaceAll(string(part.(*ast.Text).Value(source)), "\n", " ") //nolint:forcetypeassert // a code span has nothing else
		var before rune
		for _, r := range text {
			if inTable && (unicode.IsLower(before) && unicode.IsUpper(r) || before == '_') {
				put(w, "<wbr />")
			}
			put(w, html.EscapeString(string(r)))
			before = r
		}
	}
	return ast.WalkSkipChildren, nil
}

func table(w util.BufWriter, _ []byte, _ ast.Node, entering bool) (ast.WalkStatus, error) {
	if entering {
		put(w, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table>\n")
	} else {
		put(w, "</table></div>\n")
	}
	return ast.WalkContinue, nil
}

// tableHeader leaves out a header that says nothing, which Markdown cannot do without.
func tableHeader(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	empty := true
	for cell := n.FirstChild(); cell != nil; cell = cell.NextSibling() {
		empty = empty && cell.ChildCount() == 0
	}
	switch {
	case entering && empty:
		return ast.WalkSkipChildren, nil
	case entering:
		put(w, "<thead>\n<tr>\n")
	case !empty:
		put(w, "</tr>\n</thead>\n")
	}
	// goldmark's last row closes the body.
	if !entering && n.NextSibling() != nil {
		put(w, "<tbody>\n")
	}
	return ast.WalkContinue, nil
}

// put writes; the buffer keeps the first error for who flushes it.
func put(w util.BufWriter, parts ...string) {
	for _, part := range parts {
		w.WriteString(part) //nolint:errcheck // see above
	}
}
