package main

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"time"
)

//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load what it brings along and ask this server, nothing else.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// servePage adds the status page at / and what it asks for at /status.
func servePage(mux *http.ServeMux, s *sampler) {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic("bug: the status page is not embedded: " + err.Error())
	}
	static := http.FileServerFS(files)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { servePart(w, r, static) })
	for _, name := range []string{"page.css", "page.js", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { servePart(w, r, static) })
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		secure(w)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.live(time.Now())) //nolint:errcheck,errchkjson // the client has gone
	})
}

func servePart(w http.ResponseWriter, r *http.Request, files http.Handler) {
	secure(w)
	files.ServeHTTP(w, r)
}

func secure(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}
