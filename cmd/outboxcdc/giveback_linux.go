package main

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// giveBack lets go of the pages of the program file that are mapped, which is most of
// what the start has used: flags, configuration, TLS, the broker's metadata. The kernel
// maps those that are used again from its cache, in a few microseconds each, and the
// rest counts as ours no longer. Nothing else is touched: a page of a file that was
// never written holds what the file holds (madvise(2), MADV_DONTNEED).
func giveBack() error {
	mapped, err := programPages()
	if err != nil {
		return err
	}
	for _, pages := range mapped {
		if err := unix.Madvise(pages, unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("give back pages of the program: %w", err)
		}
	}
	return nil
}

// programPages is where the program file is mapped read-only.
func programPages() (mapped [][]byte, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("look at the own memory: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var access string
		n, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &access)
		if err == nil && n == 3 && access[1] == '-' && strings.HasSuffix(line, " "+program+"\n") {
			mapped = append(mapped, unsafe.Slice((*byte)(unsafe.Add(nil, from)), to-from)) //nolint:gosec // the kernel says that it is mapped
		}
	}
	return mapped, nil
}
