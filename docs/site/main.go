// Command site makes the documentation into a site: a folder of pages that needs no
// server, no script and nothing from elsewhere. It knows Markdown, and which files of the
// repository are pages; what they say it does not know.
//
//	go run ./docs/site -out dist/site
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	root := flag.String("root", ".", "the top of the repository")
	out := flag.String("out", "dist/site", "where the pages go; what is there is replaced")
	flag.Parse()
	pages, err := build(os.DirFS(*root), *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "site:", err)
		os.Exit(1)
	}
	fmt.Printf("%d pages: %s/index.html\n", pages, *out)
}
