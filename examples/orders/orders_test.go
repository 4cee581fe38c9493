package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEachEventCountsOnceAtBothConsumers runs the example as its README says.
func TestEachEventCountsOnceAtBothConsumers(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "outboxcdc")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../../cmd/outboxcdc").CombinedOutput(); err != nil {
		t.Fatalf("build outboxcdc: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, []string{"-outboxcdc", binary, "-orders", "150"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	if !strings.Contains(out.String(), "it packed what was paid, once") {
		t.Errorf("the story ends without its last sentence:\n%s", &out)
	}
}
