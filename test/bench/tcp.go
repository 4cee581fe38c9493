package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// congestionControl is what decides how much of TCP may be under way; empty where that is
// not known. It matters on one machine too: while it lets nothing out, what the walsender
// writes is joined, and that costs it less than all that a reader can do.
func congestionControl() string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// segments is how many segments of TCP this network has sent so far, those of the broker
// included; 0 where that is not known.
func segments() float64 {
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0
	}
	return sentSegments(string(text))
}

// sentSegments reads the text of /proc/net/snmp, which has two lines for TCP: names and
// numbers.
func sentSegments(snmp string) float64 {
	place := -1
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Tcp:":
		case place < 0:
			place = slices.Index(fields, "OutSegs")
		case place < len(fields):
			n, err := strconv.ParseFloat(fields[place], 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
