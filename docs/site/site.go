package main

import (
	"bytes"
	_ "embed" // for the template and its style
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Where the repository is for readers of the site: files that are no pages are there.
const repository = "https://github.com/outboxcdc/outboxcdc"

// The page that the site opens with, and the one whose tables are its navigation.
const (
	first = "README.md"
	index = "docs/README.md"
)

var (
	//go:embed page.html
	pageTemplate string
	//go:embed style.css
	style string
)

// site is all pages, and what is around them.
type site struct {
	fsys     fs.FS
	pages    map[string]*page // by path in the repository
	groups   []group          // of the navigation, in its order
	pictures map[string]bool  // by path in the repository: those that pages show
}

// group is a heading of the index and the pages of its table.
type group struct {
	Title string
	Pages []*page
}

// build makes the site of the repository in fsys, in the folder out, and gives the number
// of its pages. The same repository gives the same bytes.
func build(fsys fs.FS, out string) (int, error) {
	s := &site{fsys: fsys, pages: make(map[string]*page), pictures: make(map[string]bool)}
	if err := s.read(); err != nil {
		return 0, err
	}
	if err := s.arrange(); err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range s.pages {
		errs = append(errs, s.relink(p))
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return len(s.pages), s.write(out)
}

// read parses every page.
func (s *site) read() error {
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := fs.Glob(s.fsys, pattern)
		if err != nil {
			return err
		}
		for _, name := range paths {
			source, err := fs.ReadFile(s.fsys, name)
			if err != nil {
				return err
			}
			p, err := parse(name, source)
			if err != nil {
				return err
			}
			s.pages[name] = p
		}
	}
	if s.pages[first] == nil || s.pages[index] == nil {
		return fmt.Errorf("%s and %s are not both there", first, index)
	}
	return nil
}

// arrange reads the navigation out of the tables of the index. A page that is in none of
// them could not be found by anybody, so it is an error.
func (s *site) arrange() error {
	s.groups = []group{{Pages: []*page{s.pages[first], s.pages[index]}}}
	listed := map[string]bool{first: true, index: true}
	for _, e := range s.pages[index].entries() {
		p := s.pages[path.Join(path.Dir(index), e.link)]
		if p == nil {
			return fmt.Errorf("%s lists %s, which is no page", index, e.link)
		}
		if last := &s.groups[len(s.groups)-1]; last.Title != e.group {
			s.groups = append(s.groups, group{Title: e.group})
		}
		last := &s.groups[len(s.groups)-1]
		p.Summary = e.summary
		last.Pages = append(last.Pages, p)
		listed[p.path] = true
	}
	for name := range s.pages {
		if !listed[name] {
			return fmt.Errorf("%s is in no table of %s", name, index)
		}
	}
	return nil
}

// view is what the template shows.
type view struct {
	*page
	Site           *site
	Style          template.CSS
	Body           template.HTML
	Repository     string
	Previous, Next *page
}

// Groups are those of the navigation.
func (v *view) Groups() []group { return v.Site.groups }

// To is the way from this page to another.
func (v *view) To(p *page) string { return relative(v.file, p.file) }

// Here is the page itself.
func (v *view) Here() *page { return v.page }

// Home is the way from this page to the first one.
func (v *view) Home() string { return relative(v.file, "index.html") }

// Source is where the page's Markdown is for who wants to mend it.
func (v *view) Source() string { return repository + "/blob/main/" + v.path }

// write puts pages and pictures into a folder that is new.
func (s *site) write(out string) error {
	shape, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	var order []*page
	for _, g := range s.groups {
		order = append(order, g.Pages...)
	}
	for i, p := range order {
		body, err := p.render()
		if err != nil {
			return err
		}
		v := &view{page: p, Site: s, Style: template.CSS(style), Body: body, Repository: repository} //nolint:gosec // our own file
		if i > 0 {
			v.Previous = order[i-1]
		}
		if i+1 < len(order) {
			v.Next = order[i+1]
		}
		var text bytes.Buffer
		if err := shape.Execute(&text, v); err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
		if err := writeFile(filepath.Join(out, filepath.FromSlash(p.file)), text.Bytes()); err != nil {
			return err
		}
	}
	for name := range s.pictures {
		content, err := fs.ReadFile(s.fsys, name)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(out, filepath.FromSlash(name)), content); err != nil {
			return err
		}
	}
	return nil
}

// writeFile makes a file that a web server may read, and the folders above it.
func writeFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	return os.WriteFile(name, content, 0o644) //nolint:gosec // for everybody to read
}

// relative is the way from one file to another.
func relative(from, to string) string {
	here := strings.Split(path.Dir(from), "/")
	there := strings.Split(path.Dir(to), "/")
	here, there = slices.DeleteFunc(here, isDot), slices.DeleteFunc(there, isDot)
	for len(here) > 0 && len(there) > 0 && here[0] == there[0] {
		here, there = here[1:], there[1:]
	}
	return strings.Repeat("../", len(here)) + path.Join(append(there, path.Base(to))...)
}

func isDot(name string) bool { return name == "." }
