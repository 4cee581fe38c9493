package test

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// TestMain ends the servers that the tests share.
func TestMain(m *testing.M) { servers.Main(m) }
