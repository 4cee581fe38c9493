package checkpoint_test

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestTheSchemeChoosesTheStore(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{"", "database", "database://", "memory", "memory://", "file://" + dir + "/a", "file:" + dir + "/b"} {
		s, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Slot: "orders", Database: "postgres://db/shop"})
		if err != nil {
			t.Errorf("Open(%q) = %v", url, err)
			continue
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close of %q = %v", url, err)
		}
	}
}

// The kinds are in the message, and a password that was put here by mistake is not.
func TestAnUnusableURLNamesTheKnownOnes(t *testing.T) {
	for _, url := range []string{
		"redis://localhost", "postgres://u:hunter2@db/shop", "/var/lib/orders.json", "Database", "database ",
		"database://u:hunter2@db/shop", "database:x", "database?x=1", "memory:///x", "memory://?", "memory://#x",
		"file", "file://", "file:orders.json", "file://relative/path", "file:///a?sync=off", "file:///a#x",
		"kafka://", "kafka://b1:9092", "kafka://b1:9092/", "kafka://b1/a b", "kafka://b1/t?create=maybe",
		"file://u:hunter2@/a", "file:///%zz-hunter2", "file:///a\x7fhunter2",
	} {
		_, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Slot: "orders"})
		if fault.Classify(err) != fault.Usage {
			t.Errorf("Open(%q) = %v, want a usage error", url, err)
			continue
		}
		for _, part := range []string{"database", "memory://", "file:///"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("Open(%q) = %v, which does not name %s", url, err, part)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) shows the password: %v", url, err)
		}
	}
}

func TestAnUnusableBrokerOfPositionsIsAUsageErrorWithoutThePassword(t *testing.T) {
	for _, url := range []string{"kafka://b1/t?password=hunter2", "kafka://u:hunter2@b1/t", "kafka://b1/t?acks=1"} {
		_, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Slot: "orders"})
		if fault.Classify(err) != fault.Usage || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "checkpoint") {
			t.Errorf("Open(%q) = %v, want a usage error about the checkpoint without the password", url, err)
		}
	}
}

func TestAStoreNeedsASlot(t *testing.T) {
	for _, url := range []string{"database", "memory://"} {
		if _, err := checkpoint.Open(t.Context(), url, checkpoint.Options{}); fault.Classify(err) != fault.Usage {
			t.Errorf("Open(%q) without a slot = %v, want a usage error", url, err)
		}
	}
}

func TestABadDatabaseURLIsAUsageErrorWithoutThePassword(t *testing.T) {
	for _, text := range []string{"postgres://u:hunter2@db:port/shop", "host=db password=hunter2 sslmode=maybe", "nonsense hunter2"} {
		_, err := checkpoint.Open(t.Context(), "database", checkpoint.Options{Slot: "orders", Database: text})
		if fault.Classify(err) != fault.Usage || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open with database %q = %v, want a usage error without the password", text, err)
		}
	}
}
