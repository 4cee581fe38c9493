package nemesis

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// TestMain ends the servers.
func TestMain(m *testing.M) { servers.Main(m) }
