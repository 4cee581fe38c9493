package main

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// relink makes a page's links, which lead from file to file of the repository, lead from
// page to page of the site; those to other files lead to the repository.
func (s *site) relink(p *page) error {
	for link := range nodes[*ast.Link](p.tree) {
		to, target, err := s.resolve(p, string(link.Destination))
		if err != nil {
			return err
		}
		link.Destination = []byte(to)
		// A link that is called by its file, as it should be beside the code, is called by
		// the page's title here.
		if label := p.text(link); target != nil && (strings.HasSuffix(label, ".md") && !strings.Contains(label, " ")) {
			link.RemoveChildren(link)
			link.AppendChild(link, ast.NewString([]byte(target.Title)))
		}
	}
	for picture := range nodes[*ast.Image](p.tree) {
		name := path.Join(path.Dir(p.path), string(picture.Destination))
		if _, err := fs.Stat(s.fsys, name); err != nil {
			return fmt.Errorf("%s shows a picture: %w", p.path, err)
		}
		s.pictures[name] = true
		picture.Destination = []byte(relative(p.file, name))
	}
	return nil
}

// resolve is where a link of a page leads, and the page that is there if one is.
func (s *site) resolve(p *page, link string) (to string, target *page, err error) {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "#") {
		return link, nil, nil
	}
	file, fragment, found := strings.Cut(link, "#")
	if found {
		fragment = "#" + fragment
	}
	name := path.Join(path.Dir(p.path), file)
	if target := s.pages[name]; target != nil {
		return relative(p.file, target.file) + fragment, target, nil
	}
	info, err := fs.Stat(s.fsys, name)
	if err != nil {
		return "", nil, fmt.Errorf("%s has a link: %w", p.path, err)
	}
	kind := "blob"
	if info.IsDir() {
		kind = "tree"
	}
	return repository + "/" + kind + "/main/" + name + fragment, nil, nil
}
