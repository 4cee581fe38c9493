package servers

import "net"

// HalfClose ends the direction from the target to the client on all connections that
// are open now, in order, as a server does that has said its last word. The other
// direction stays.
func (p *Proxy) HalfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.mu.Lock()
		if client, ok := l.client.(*net.TCPConn); ok {
			_ = client.CloseWrite() // one that is gone already has no word left
		}
		l.mu.Unlock()
	}
}
