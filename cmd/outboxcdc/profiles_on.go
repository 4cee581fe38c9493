//go:build profiles

package main

import (
	"net/http"
	"net/http/pprof"
)

// serveProfiles lets developers look into a binary that was built for it, with the
// tag profiles (`make profile`).
func serveProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.Handle("GET /debug/pprof/allocs", pprof.Handler("allocs"))
}
