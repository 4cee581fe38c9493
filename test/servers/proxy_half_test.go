package servers

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestAHalfClosedLinkStillCarriesTheOtherDirection(t *testing.T) {
	target, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(target)
	p := NewProxy(t, target.Addr().String())
	client, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer shut(client)
	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer shut(server)
	for _, c := range []net.Conn{client, server} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	p.HalfClose()
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the client read %d bytes, %v, want the end", n, err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Errorf("the server read nothing from a client that may still speak: %v", err)
	}
}
