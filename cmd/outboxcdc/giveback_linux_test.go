package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// fileKiB is how much of our resident memory is pages of files.
func fileKiB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("the kernel does not say what of our memory is of files")
	return 0
}

func TestWhatOnlyTheStartUsedIsGivenBack(t *testing.T) {
	mapped, err := programPages()
	if err != nil || len(mapped) == 0 {
		t.Fatalf("the program is mapped in %d places, %v", len(mapped), err)
	}
	sum := 0
	for _, pages := range mapped {
		for i := 0; i < len(pages); i += os.Getpagesize() {
			sum += int(pages[i])
		}
	}
	before := fileKiB(t)
	if err := giveBack(); err != nil {
		t.Fatal(err)
	}
	if after := fileKiB(t); after > before/2 {
		t.Errorf("%d KiB of files are resident after %d KiB, want less than half (%d)", after, before, sum)
	}
}
