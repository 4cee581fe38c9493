package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

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

// outlastsTheDrain holds the time that a stop is given against the drain: were it the
// shorter one, a stop would be a kill.
func outlastsTheDrain(tb testing.TB, where, grace string) {
	tb.Helper()
	if _, err := strconv.Atoi(grace); err == nil {
		grace += "s"
	}
	given, err := time.ParseDuration(grace)
	drain, _ := time.ParseDuration(defaultText((&program{}).knownFlags()["drain-timeout"])) // 0 is refused below
	if err != nil || drain == 0 || given <= drain {
		tb.Errorf("%s waits for %q (%v), a drain takes %v", where, grace, err, drain)
	}
}

func TestTheComposeFileRunsWhatTheProgramTakes(t *testing.T) {
	clearEnv(t)
	var file struct {
		Services map[string]struct {
			Image       string
			Command     []string
			Environment map[string]string
			Ports       []string
			GracePeriod string `yaml:"stop_grace_period"`
		}
	}
	if err := yaml.Unmarshal([]byte(contentOf(t, "../../deploy/compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	flags, ours := (&program{}).knownFlags(), 0
	for name, s := range file.Services {
		if s.Image != "outboxcdc:local" {
			continue
		}
		ours++
		if err := parse(s.Command); err != nil {
			t.Errorf("service %s runs outboxcdc %q: %v", name, s.Command, err)
		}
		for variable := range s.Environment {
			if flags[strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "OUTBOXCDC_"), "_", "-"))] == nil {
				t.Errorf("service %s has %s, which is no variable of ours", name, variable)
			}
		}
		_, port, _ := strings.Cut(s.Environment["OUTBOXCDC_HTTP"], ":")
		if len(s.Ports) > 0 && (port == "" || !strings.HasSuffix(s.Ports[0], ":"+port)) {
			t.Errorf("service %s listens on %q and shows %q", name, port, s.Ports)
		}
		if s.Command[0] == "stream" {
			outlastsTheDrain(t, "service "+name, s.GracePeriod)
		}
		for _, host := range regexp.MustCompile(`(?:@|kafka://)([a-z]+):`).FindAllStringSubmatch(
			s.Environment["OUTBOXCDC_DATABASE_URL"]+" "+s.Environment["OUTBOXCDC_SINK"], -1) {
			if _, found := file.Services[host[1]]; !found {
				t.Errorf("service %s goes to %s, which is no service", name, host[1])
			}
		}
	}
	if ours != 2 {
		t.Errorf("%d services run outboxcdc, want init and stream", ours)
	}
}

func TestTheImagesRunWhatTheProgramTakes(t *testing.T) {
	clearEnv(t)
	var settings []string
	for _, path := range []string{"../../Dockerfile", "../../deploy/release.Dockerfile"} {
		_, image, _ := strings.Cut(contentOf(t, path), "FROM scratch\n")
		var command []string
		_, line, _ := strings.Cut(image, "CMD ")
		if err := json.Unmarshal([]byte(line), &command); err != nil || parse(command) != nil {
			t.Errorf("%s runs %q: %v", path, line, err)
		}
		if _, port, _ := strings.Cut(defaultHTTP, ":"); !strings.Contains(image, "EXPOSE "+port+"\n") {
			t.Errorf("%s does not expose %s, where the program listens", path, port)
		}
		settings = append(settings, regexp.MustCompile(`(?m)^(COPY|ARG) .*\n`).ReplaceAllString(image, ""))
	}
	if diff := cmp.Diff(settings[0], settings[1]); diff != "" {
		t.Errorf("the image of a release is another one (-Dockerfile +release.Dockerfile):\n%s", diff)
	}
}

// goreleaser builds an image from the programs that it has built and the files that are
// named to it; a Dockerfile that builds from source finds none.
func TestTheImageOfAReleaseIsMadeOfWhatItIsGiven(t *testing.T) {
	var release struct {
		Images []struct {
			Dockerfile string
			Files      []string `yaml:"extra_files"`
		} `yaml:"dockers_v2"`
	}
	if err := yaml.Unmarshal([]byte(contentOf(t, "../../.goreleaser.yaml")), &release); err != nil {
		t.Fatal(err)
	}
	for _, image := range release.Images {
		given := append([]string{"${TARGETPLATFORM}/outboxcdc"}, image.Files...)
		for _, found := range regexp.MustCompile(`(?m)^COPY (\S+) `).FindAllStringSubmatch(contentOf(t, "../../"+image.Dockerfile), -1) {
			if !strings.HasPrefix(found[1], "--from=") && !slices.Contains(given, found[1]) {
				t.Errorf("the image of a release copies %s, which it is not given", found[1])
			}
		}
	}
	if len(release.Images) != 1 {
		t.Errorf("a release has %d images, want 1", len(release.Images))
	}
}

// A name that does not tell the systems apart lets the last bill be the only one.
func TestEachProgramOfAReleaseHasABillOfItsOwn(t *testing.T) {
	var release struct {
		SBOMs []struct {
			Artifacts string
			Documents []string
		}
	}
	if err := yaml.Unmarshal([]byte(contentOf(t, "../../.goreleaser.yaml")), &release); err != nil {
		t.Fatal(err)
	}
	for _, bill := range release.SBOMs {
		name := strings.Join(bill.Documents, " ")
		if bill.Artifacts != "binary" || !strings.Contains(name, "{{ .Os }}") || !strings.Contains(name, "{{ .Arch }}") {
			t.Errorf("bills of materials of each %s are called %q", bill.Artifacts, name)
		}
	}
	if len(release.SBOMs) != 1 {
		t.Errorf("there are %d kinds of bills, want 1", len(release.SBOMs))
	}
}

// The packages make a folder for what the unit reads. The unit's user is one of its own,
// so a folder for root alone would keep it from its settings.
func TestTheUnitReachesItsSettings(t *testing.T) {
	unit := contentOf(t, "../../deploy/systemd/outboxcdc@.service")
	run := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/outboxcdc (.*--config (/.*)/%i\.yaml)$`).FindStringSubmatch(unit)
	if run == nil {
		t.Fatal("the unit starts no outboxcdc with --config")
	}
	clearEnv(t)
	if err := parse(strings.Fields(run[1])); err != nil {
		t.Errorf("the unit runs %q: %v", run[1], err)
	}
	outlastsTheDrain(t, "the unit", regexp.MustCompile(`(?m)^TimeoutStopSec=(.*)$`).FindStringSubmatch(unit)[1])
	var release struct {
		NFPMs []struct {
			Contents []struct {
				Dst, Type string
				FileInfo  struct{ Mode fs.FileMode } `yaml:"file_info"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(contentOf(t, "../../.goreleaser.yaml")), &release); err != nil {
		t.Fatal(err)
	}
	made := false
	for _, c := range release.NFPMs[0].Contents {
		if c.Type == "dir" && c.Dst == run[2] {
			made = true
			if strings.Contains(unit, "DynamicUser=yes") && c.FileInfo.Mode&0o005 != 0o005 {
				t.Errorf("the packages make %s with mode %o, and the unit's user cannot read what is in it", c.Dst, c.FileInfo.Mode)
			}
		}
	}
	if !made {
		t.Errorf("the packages do not make %s", run[2])
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
