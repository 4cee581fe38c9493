//go:build !profiles

package main

import "net/http"

// serveProfiles serves nothing: what a profile shows is for developers.
func serveProfiles(*http.ServeMux) {}
