package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// What is in deploy/ is made for the program as it is: names that it does not know would
// be found out by nobody, since a query for them is just empty.

func TestAlertsAndDashboardAskForMetricsThatThereAre(t *testing.T) {
	now := time.Now()
	text := exposition(t, pipeline.Stats{
		State: pipeline.Streaming, Read: 5, Sent: 4, Acked: 3, Saved: 2, Confirmed: 1,
		LastCommit: now, LastErrorTime: now, SlotLookedAt: now, Broken: map[fault.Class]uint64{fault.Transient: 1},
		LogEnd: 6, Topics: []pipeline.TopicCount{{Topic: "t"}},
	}) + "outboxcdc_build_info"
	for _, path := range []string{"../../deploy/prometheus/alerts.yaml", "../../deploy/grafana/outboxcdc.json"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\boutboxcdc_[a-z_]+`).FindAllString(string(content), -1)
		if len(names) < 5 {
			t.Errorf("%s asks for %d metrics only", path, len(names))
		}
		for _, name := range names {
			if !strings.Contains(text, name) {
				t.Errorf("%s asks for %s, which there is not", path, name)
			}
		}
	}
}

func TestTheDashboardIsOneThatGrafanaReads(t *testing.T) {
	content, err := os.ReadFile("../../deploy/grafana/outboxcdc.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID    string `json:"uid"`
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		} `json:"panels"`
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("panel %d %q is no panel: %+v", p.ID, p.Title, p)
		}
		ids[p.ID] = true
	}
	if dashboard.UID == "" || len(ids) < 10 {
		t.Errorf("uid %q with %d panels", dashboard.UID, len(ids))
	}
}

func TestTheUnitNamesFlagsAndVariablesThatThereAre(t *testing.T) {
	content, err := os.ReadFile("../../deploy/systemd/outboxcdc@.service")
	if err != nil {
		t.Fatal(err)
	}
	flags := (&program{}).knownFlags()
	for _, word := range regexp.MustCompile(`--[a-z-]+`).FindAllString(string(content), -1) {
		if word != "--now" && flags[strings.TrimPrefix(word, "--")] == nil {
			t.Errorf("the unit has %s, which is no flag", word)
		}
	}
	for _, variable := range regexp.MustCompile(`OUTBOXCDC_[A-Z_]+`).FindAllString(string(content), -1) {
		name := strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(variable, "OUTBOXCDC_"), "_FILE"), "_", "-"))
		if flags[name] == nil {
			t.Errorf("the unit has %s, which is no variable of ours", variable)
		}
	}
}
