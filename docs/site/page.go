package main

import (
	"bytes"
	"fmt"
	"html/template"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// page is a Markdown file of the repository, parsed.
type page struct {
	path   string // in the repository
	file   string // in the site
	source []byte
	tree   ast.Node

	Title    string // of its first heading
	Summary  string // what the index says of it
	Sections []section
	Broad    bool // it has a table of many columns
}

// section is a heading of the second level.
type section struct{ ID, Title string }

// markdown is GitHub's, as far as the pages use it. Its HTML is XML as well, so that a
// page with a tag that is not closed is found by any parser.
func markdown() goldmark.Markdown {
	return goldmark.New(
		goldmark.WithExtensions(extension.Table),
		goldmark.WithRendererOptions(html.WithXHTML(), renderer.WithNodeRenderers(util.Prioritized(shapes{}, 1))),
	)
}

// parse reads a page and names its headings.
func parse(name string, source []byte) (*page, error) {
	p := &page{path: name, file: fileOf(name), source: source, tree: markdown().Parser().Parse(text.NewReader(source))}
	taken := make(map[string]int)
	for heading := range nodes[*ast.Heading](p.tree) {
		title := p.text(heading)
		id := anchor(title)
		if n := taken[id]; n > 0 {
			taken[id]++
			id += "-" + strconv.Itoa(n)
		} else {
			taken[id] = 1
		}
		heading.SetAttributeString("id", []byte(id))
		switch {
		case heading.Level == 1 && p.Title == "":
			p.Title = title
		case heading.Level == 2:
			p.Sections = append(p.Sections, section{ID: id, Title: title})
		}
	}
	for table := range nodes[*east.Table](p.tree) {
		p.Broad = p.Broad || len(table.Alignments) > 4
	}
	if p.Title == "" {
		return nil, fmt.Errorf("%s has no heading that could be its title", name)
	}
	return p, nil
}

// fileOf is where a page is in the site. What a folder's README says is its first page.
func fileOf(name string) string {
	if path.Base(name) == first {
		return path.Join(path.Dir(name), "index.html")
	}
	return strings.TrimSuffix(name, ".md") + ".html"
}

// anchor is the name under which GitHub reaches a heading, so that a link works there and
// here.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, strings.TrimSpace(title))
}

// nodes are those of a kind, in the order of the text.
func nodes[N ast.Node](tree ast.Node) func(yield func(N) bool) {
	return func(yield func(N) bool) {
		//nolint:errcheck // the walker gives none
		ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			if found, is := n.(N); is && entering && !yield(found) {
				return ast.WalkStop, nil
			}
			return ast.WalkContinue, nil
		})
	}
}

// text is what a reader sees of a node.
func (p *page) text(n ast.Node) string {
	var out strings.Builder
	for part := range nodes[ast.Node](n) {
		switch part := part.(type) {
		case *ast.Text:
			out.Write(part.Value(p.source))
			if part.SoftLineBreak() {
				out.WriteByte(' ')
			}
		case *ast.String:
			out.Write(part.Value)
		}
	}
	return out.String()
}

// entry is a row of a table of pages.
type entry struct{ group, link, summary string }

// entries are the rows of the page's tables that begin with a link, each with the heading
// above it.
func (p *page) entries() []entry {
	var all []entry
	group := ""
	for n := range nodes[ast.Node](p.tree) {
		switch n := n.(type) {
		case *ast.Heading:
			group = p.text(n)
		case *east.TableRow:
			for link := range nodes[*ast.Link](n.FirstChild()) {
				all = append(all, entry{group: group, link: string(link.Destination), summary: p.text(n.LastChild())})
				break
			}
		}
	}
	return all
}

// render is the page's body.
func (p *page) render() (template.HTML, error) {
	var out bytes.Buffer
	if err := markdown().Renderer().Render(&out, p.source, p.tree); err != nil {
		return "", fmt.Errorf("%s: %w", p.path, err)
	}
	return template.HTML(out.String()), nil //nolint:gosec // goldmark has escaped it
}
