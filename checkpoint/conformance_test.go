package checkpoint_test

import (
	"path/filepath"
	"testing"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/checkpoint/checkpointtest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	checkpointtest.Run(t, func(*testing.T) func() checkpoint.Store {
		m := checkpoint.NewMemory(checkpointtest.Slot)
		return func() checkpoint.Store { return m }
	})
}

func TestFileKeepsTheContract(t *testing.T) {
	checkpointtest.Run(t, func(t *testing.T) func() checkpoint.Store {
		url := "file://" + filepath.Join(t.TempDir(), "odd name%25.json")
		return func() checkpoint.Store {
			s, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Slot: checkpointtest.Slot})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}
