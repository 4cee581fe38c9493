package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func someFindings() []fault.Finding {
	return []fault.Finding{
		{Code: "server", Severity: fault.OK, Subject: "server", Problem: "PostgreSQL 17.5 with wal_level logical"},
		{Code: "slot.retained", Severity: fault.Warning, Subject: "slot orders", Problem: "1 GiB of log is kept for it", Fix: "stream from it"},
		{Code: "topic.missing", Severity: fault.Failure, Subject: "topic <a&b>", Problem: "it does not exist", Fix: "make it, or give --create-topics"},
	}
}

func TestFindingsReadWellAtNight(t *testing.T) {
	var out bytes.Buffer
	if err := printFindings(&out, someFindings()); err != nil {
		t.Fatal(err)
	}
	golden(t, "findings.txt", out.String())
}

func TestFindingsAreJSONForPrograms(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, someFindings()); err != nil {
		t.Fatal(err)
	}
	golden(t, "findings.json", out.String())
	out.Reset()
	if err := printJSON(&out, nil); err != nil || out.String() != "[]\n" {
		t.Errorf("nothing found is %q (%v), want an empty array", out.String(), err)
	}
}

func TestOnlyAFailureMakesTheCheckFail(t *testing.T) {
	all := someFindings()
	for n, want := range []int{fault.ExitOK, fault.ExitOK, fault.ExitOK, fault.ExitOperator} {
		if got := fault.ExitCode(verdict(all[:n])); got != want {
			t.Errorf("%d findings: exit %d, want %d", n, got, want)
		}
	}
}

func TestWhatKeptUsFromLookingIsAFindingWithItsFix(t *testing.T) {
	err := &fault.Error{Class: fault.Transient, Err: errors.New("connect to db: refused"), Advice: "start it"}
	want := fault.Finding{Code: "c", Severity: fault.Failure, Subject: "s", Problem: "connect to db: refused", Fix: "start it"}
	if diff := cmp.Diff(want, asFinding("c", "s", err)); diff != "" {
		t.Errorf("finding (-want +got):\n%s", diff)
	}
}
