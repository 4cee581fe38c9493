package main

import (
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// look is what a test sees of a page.
type look struct {
	title    string
	language string
	ids      []string
	links    []string // where they lead, as they are written
	assets   []string // what the browser fetches by itself
	count    map[string]int
	bare     []string // elements that lack what a reader who does not see them needs
}

// lookAt parses a page, which is XML.
func lookAt(tb testing.TB, name, content string) *look {
	tb.Helper()
	seen := &look{count: make(map[string]int)}
	tokens := xml.NewDecoder(strings.NewReader(content))
	tokens.Entity = xml.HTMLEntity
	for inTitle := false; ; {
		token, err := tokens.Token()
		if errors.Is(err, io.EOF) {
			return seen
		}
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inTitle = token.Name.Local == "title"
			seen.element(token)
		case xml.CharData:
			if inTitle {
				seen.title += string(token)
			}
		case xml.EndElement:
			inTitle = false
		}
	}
}

// element notes what there is to an element.
func (l *look) element(e xml.StartElement) {
	l.count[e.Name.Local]++
	with := make(map[string]string)
	for _, a := range e.Attr {
		with[a.Name.Local] = a.Value
	}
	if id, found := with["id"]; found {
		l.ids = append(l.ids, id)
	}
	switch e.Name.Local {
	case "html":
		l.language = with["lang"]
	case "a":
		l.links = append(l.links, with["href"])
	case "img":
		if with["alt"] == "" {
			l.bare = append(l.bare, "a picture without words")
		}
	case "nav":
		if with["aria-label"] == "" {
			l.bare = append(l.bare, "a nav without a name")
		}
	}
	for _, fetched := range []string{with["src"], with["srcset"], with["data"], with["poster"]} {
		if fetched != "" {
			l.assets = append(l.assets, fetched)
		}
	}
	if e.Name.Local == "link" {
		l.assets = append(l.assets, with["href"])
	}
}

// built is the site of a repository: its files by name.
func built(tb testing.TB, repository fs.FS) map[string]string {
	tb.Helper()
	out := tb.TempDir() + "/site"
	if _, err := build(repository, out); err != nil {
		tb.Fatal(err)
	}
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(out), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(os.DirFS(out), name)
		files[name] = string(content)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

func looks(tb testing.TB, files map[string]string) map[string]*look {
	tb.Helper()
	pages := make(map[string]*look)
	for name, content := range files {
		if path.Ext(name) == ".html" {
			pages[name] = lookAt(tb, name, content)
		}
	}
	return pages
}

func TestTheSiteHasEveryPageOfTheRepository(t *testing.T) {
	pages := looks(t, built(t, os.DirFS("../..")))
	titles := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := fs.Glob(os.DirFS("../.."), pattern)
		if err != nil || len(paths) < 4 {
			t.Fatalf("%s: %d pages, %v", pattern, len(paths), err)
		}
		for _, name := range paths {
			file := strings.TrimSuffix(strings.Replace(name, "README.md", "index.md", 1), ".md") + ".html"
			page := pages[file]
			if page == nil {
				t.Errorf("%s is not in the site as %s", name, file)
				continue
			}
			if page.title == "" || titles[page.title] != "" {
				t.Errorf("%s has the title %q; %q has it too", file, page.title, titles[page.title])
			}
			titles[page.title] = file
		}
	}
	if len(titles) != len(pages) {
		t.Errorf("the site has %d pages, the repository %d", len(pages), len(titles))
	}
}

func TestEveryLinkOfTheSiteLeadsSomewhere(t *testing.T) {
	files := built(t, os.DirFS("../.."))
	pages := looks(t, files)
	links := 0
	for name, page := range pages {
		for _, link := range page.links {
			if strings.HasPrefix(link, "https://") || strings.HasPrefix(link, "http://") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(link, "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, found := files[target]; !found {
				t.Errorf("%s links to %s, which is not there", name, link)
			} else if anchor != "" && !slices.Contains(pages[target].ids, anchor) {
				t.Errorf("%s links to %s, and nothing has that name there", name, link)
			}
		}
	}
	if links < 500 {
		t.Errorf("only %d links are found", links)
	}
}

func TestThePagesFetchNothingFromElsewhere(t *testing.T) {
	files := built(t, os.DirFS("../.."))
	pictures := 0
	for name, page := range looks(t, files) {
		if page.count["script"] > 0 {
			t.Errorf("%s has a script", name)
		}
		if strings.Contains(files[name], "url(") || strings.Contains(files[name], "@import") {
			t.Errorf("the style of %s fetches something", name)
		}
		for _, asset := range page.assets {
			if strings.HasPrefix(asset, "data:") {
				continue
			}
			pictures++
			if _, found := files[path.Join(path.Dir(name), asset)]; !found {
				t.Errorf("%s shows %s, which is not in the site", name, asset)
			}
		}
	}
	if pictures == 0 {
		t.Error("no page shows a picture")
	}
}

func TestEveryPageIsReachedFromTheFirst(t *testing.T) {
	pages := looks(t, built(t, os.DirFS("../..")))
	reached := map[string]bool{"index.html": true}
	for next := []string{"index.html"}; len(next) > 0; next = next[1:] {
		for _, link := range pages[next[0]].links {
			file, _, _ := strings.Cut(link, "#")
			target := path.Join(path.Dir(next[0]), file)
			if file != "" && pages[target] != nil && !reached[target] {
				reached[target] = true
				next = append(next, target)
			}
		}
	}
	for name := range pages {
		if !reached[name] {
			t.Errorf("no link leads to %s", name)
		}
	}
}

// What is here of a browser that reads aloud, or is driven by keys, can be told from the
// text; how it looks cannot.
func TestPagesSayWhatTheirPartsAre(t *testing.T) {
	for name, page := range looks(t, built(t, os.DirFS("../.."))) {
		for element, want := range map[string]int{"h1": 1, "main": 1, "header": 1, "footer": 1, "title": 1} {
			if page.count[element] != want {
				t.Errorf("%s has %d %s, want %d", name, page.count[element], element, want)
			}
		}
		ids := slices.Sorted(slices.Values(page.ids))
		if unique := slices.Compact(slices.Clone(ids)); len(unique) != len(ids) || slices.Contains(ids, "") {
			t.Errorf("%s has names twice, or an empty one: %q", name, ids)
		}
		if page.language != "en" || page.links[0] != "#main" || len(page.bare) > 0 {
			t.Errorf("%s: language %q, first link %q, %q", name, page.language, page.links[0], page.bare)
		}
	}
}

func TestNothingOfAPageIsLeftOut(t *testing.T) {
	for name, content := range built(t, os.DirFS("../..")) {
		if strings.Contains(content, "raw HTML omitted") || strings.Contains(content, "ZgotmplZ") {
			t.Errorf("%s lacks something that its Markdown has", name)
		}
	}
}

func TestTheSameRepositoryGivesTheSameSite(t *testing.T) {
	if diff := cmp.Diff(built(t, os.DirFS("../..")), built(t, os.DirFS("../.."))); diff != "" {
		t.Error(diff)
	}
}

// small is a repository with a link of each kind.
func small() fstest.MapFS {
	return fstest.MapFS{
		"README.md":         {Data: []byte("# Top\n\n[docs/a.md](docs/a.md#two-words-1) [b](docs/sub/code.go#L3) [c](docs/sub) [d](https://example.com/x.md)\n")},
		"docs/README.md":    {Data: []byte("# Index\n\n## Group\n\n| page | says |\n|---|---|\n| [a.md](a.md) | what a says |\n| [../OTHER.md](../OTHER.md) | more |\n")},
		"docs/a.md":         {Data: []byte("# A `page`\n\n## Two words\n\n## Two words\n\n[home](../README.md) [up](../OTHER.md) [here](#two-words)\n\n![words](images/p.png)\n\n| | |\n|---|---|\n| x | `<y>TestIt` |\n")},
		"OTHER.md":          {Data: []byte("# Other\n")},
		"docs/sub/code.go":  {Data: []byte("package sub\n")},
		"docs/images/p.png": {Data: []byte("a picture")},
	}
}

func TestLinksBetweenFilesBecomeLinksBetweenPages(t *testing.T) {
	files := built(t, small())
	if got, want := slices.Sorted(maps.Keys(files)), []string{"OTHER.html", "docs/a.html", "docs/images/p.png", "docs/index.html", "index.html"}; !slices.Equal(got, want) {
		t.Fatalf("the site is %q, want %q", got, want)
	}
	for file, wanted := range map[string][]string{
		"index.html": {
			`<a href="docs/a.html#two-words-1">A page</a>`, `<a href="https://example.com/x.md">d</a>`,
			`<a href="` + repository + `/blob/main/docs/sub/code.go#L3">b</a>`, `<a href="` + repository + `/tree/main/docs/sub">c</a>`,
			`<a rel="next" href="docs/index.html">`,
		},
		"docs/a.html": {
			`<a href="../index.html">home</a>`, `<a href="../OTHER.html">up</a>`, `<a href="#two-words">here</a>`,
			`<h2 id="two-words">`, `<h2 id="two-words-1">`, `<img src="images/p.png" alt="words" />`,
			`<a href="a.html" aria-current="page">A page</a>`, `<meta name="description" content="what a says" />`,
			"<table>\n<tbody>\n<tr>\n<td>x</td>\n<td><code>&lt;y&gt;Test<wbr />It</code></td>\n</tr>\n</tbody>\n</table>",
			`<a href="` + repository + `/blob/main/docs/a.md">`,
		},
		"OTHER.html": {`<a href="docs/a.html">A page</a>`, `<h2>Group</h2>`},
	} {
		for _, want := range wanted {
			if !strings.Contains(files[file], want) {
				t.Errorf("%s lacks %s:\n%s", file, want, files[file])
			}
		}
	}
}

func TestWhatWouldBeLostInTheSiteIsRefused(t *testing.T) {
	for name, tt := range map[string]struct{ file, content, want string }{
		"a page that no table lists":    {"docs/b.md", "# B\n", "docs/b.md is in no table of docs/README.md"},
		"a page without a title":        {"OTHER.md", "text\n", "OTHER.md has no heading"},
		"a link to nothing":             {"OTHER.md", "# O\n\n[x](gone.md)\n", "OTHER.md has a link: open gone.md"},
		"a picture that is not there":   {"OTHER.md", "# O\n\n![x](gone.png)\n", "OTHER.md shows a picture: open gone.png"},
		"a table that lists no page":    {"docs/README.md", "# I\n\n| p |\n|---|\n| [x](images/p.png) |\n", "docs/README.md lists images/p.png"},
		"a repository without an index": {"docs/README.md", "", "docs/README.md"},
	} {
		repository := small()
		repository[tt.file] = &fstest.MapFile{Data: []byte(tt.content)}
		_, err := build(repository, t.TempDir()+"/site")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
