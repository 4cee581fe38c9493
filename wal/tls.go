package wal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// errNoTLS means that the server takes no TLS where we insist on it.
var errNoTLS = errors.New("the server takes no TLS")

// verifyRemote makes verify-full of what libpq does where nobody names an sslmode, for
// every host that is not local: it would encrypt with whoever answers, and send the
// password in clear text to a server that says it knows no TLS. An sslmode in the URL,
// in PGSSLMODE or in a service file has its way; prefer in a service file counts for
// none, because nothing tells it from libpq's own.
func verifyRemote(settings *pgconn.Config, text string) error {
	if namesMode(text) || !slices.ContainsFunc(attempts(settings), func(a *pgconn.FallbackConfig) bool { return open(settings, a) }) {
		return nil
	}
	var kept []*pgconn.FallbackConfig
	for _, a := range attempts(settings) {
		switch {
		case isLocal(a.Host):
			kept = append(kept, a)
		case a.TLSConfig != nil: // what follows it without TLS is left out
			strict := verifying(text, a)
			if strict == nil {
				return badDatabase(nil, "name an sslmode in it, with special characters percent-encoded or quoted")
			}
			kept = append(kept, strict)
		}
	}
	settings.Host, settings.Port, settings.TLSConfig = kept[0].Host, kept[0].Port, kept[0].TLSConfig
	settings.Fallbacks = kept[1:]
	return nil
}

// verifying is the attempt a with sslmode=verify-full, or nil when the text leaves no
// room to say so. It is put behind the text, where it outranks environment and service
// files: as the first parameter, as a further one, or as a pair. Whichever is wrong
// does not parse, or has not the effect.
func verifying(text string, a *pgconn.FallbackConfig) *pgconn.FallbackConfig {
	for _, separator := range []string{"?", "&", " "} {
		settings, err := pgconn.ParseConfig(text + separator + "sslmode=verify-full")
		if err != nil {
			continue
		}
		for _, s := range attempts(settings) {
			if s.Host == a.Host && s.Port == a.Port && s.TLSConfig != nil && !s.TLSConfig.InsecureSkipVerify && s.TLSConfig.ServerName != "" {
				return s
			}
		}
	}
	return nil
}

// namesMode says whether the text or the environment names an sslmode, also as
// ssl=true. The text has passed with all keys allowed.
func namesMode(text string) bool {
	if os.Getenv("PGSSLMODE") != "" { //nolint:forbidigo // it is a part of what the text means, as pgconn reads it
		return true
	}
	others := slices.DeleteFunc(allowedKeys(), func(key string) bool { return key == "sslmode" })
	_, err := pgconn.ParseConfigWithOptions(text, pgconn.ParseConfigOptions{ConnStringAllowedKeys: others})
	return err != nil
}

// attempts are the ways in which pgconn tries to connect, in order: a host of
// sslmode=prefer stands there twice, without TLS behind it.
func attempts(settings *pgconn.Config) []*pgconn.FallbackConfig {
	first := &pgconn.FallbackConfig{Host: settings.Host, Port: settings.Port, TLSConfig: settings.TLSConfig}
	return append([]*pgconn.FallbackConfig{first}, settings.Fallbacks...)
}

// open says whether an attempt at a host that is not local is what libpq does without
// an sslmode: encrypted with anybody, and behind it in clear text.
func open(settings *pgconn.Config, a *pgconn.FallbackConfig) bool {
	if isLocal(a.Host) || a.TLSConfig == nil || !a.TLSConfig.InsecureSkipVerify || a.TLSConfig.VerifyPeerCertificate != nil {
		return false
	}
	if settings.SSLNegotiation == "direct" { // pgconn makes require of it
		return true
	}
	all := attempts(settings)
	i := slices.IndexFunc(all, func(b *pgconn.FallbackConfig) bool { return b.TLSConfig == a.TLSConfig })
	return i+1 < len(all) && all[i+1].TLSConfig == nil && all[i+1].Host == a.Host && all[i+1].Port == a.Port
}

// isLocal says whether what goes to a host stays on this machine: a socket in the file
// system, the loopback interface, or the one name that is always its (RFC 6761, 6.3).
// What other names mean is for name servers to say, so none of them is local.
func isLocal(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	at, err := netip.ParseAddr(host)
	return err == nil && at.Unmap().IsLoopback()
}

// attended makes dial give connections that know a server's no to TLS, and settings
// take them off where nothing was asked. pgconn's own error for it has no type.
func attended(settings *pgconn.Config, dial pgconn.DialFunc) {
	settings.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &doorman{Conn: &readAhead{Conn: conn}}, nil
	}
	settings.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		d, ok := conn.(*doorman)
		if !ok {
			return conn, nil
		}
		if f, ok := d.Conn.(*readAhead); ok {
			return f.Conn, nil // as it came: a stream looks at what kind of socket it has
		}
		return d.Conn, nil
	}
}

// doorman stands at a connection that is to be encrypted. He knows the server's answer
// to whether it takes TLS, and listens when it hangs up: the client has shown its
// certificate before the server looks at it (TLS 1.3), so the reason comes when we
// write already, and a write that fails would hide it.
type doorman struct {
	net.Conn
	spoke, asked bool  // Write's: whether the first was, and was an SSLRequest
	answered     bool  // Read's: whether the first was
	broken       error // Write's: of the first that failed
}

const sslRequestBytes = 8 // protocol.h, NEGOTIATE_SSL_CODE

// Write is net.Conn's. An SSLRequest is the only first message so short: the start-up
// packet carries a user, and a TLS handshake more than that.
func (d *doorman) Write(b []byte) (int, error) {
	if !d.spoke {
		d.spoke, d.asked = true, len(b) == sslRequestBytes
	}
	if d.broken != nil {
		return 0, d.broken
	}
	n, err := d.Conn.Write(b)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		d.broken = err
		return len(b), nil // the read that follows has the reason, or this error
	}
	return n, err
}

// Read is net.Conn's.
func (d *doorman) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if n == 0 || d.answered {
		return n, err
	}
	d.answered = true
	if d.asked && b[0] == 'N' {
		return 0, errNoTLS
	}
	return n, err
}

// distrustAdvice says what to do where one side rejects the other's certificate, which
// does not pass by itself, while a server that goes away in the midst of a handshake
// does. It is empty for any other error.
func distrustAdvice(err error) string {
	const unproved = "; sslmode=require encrypts without any proof of who the server is"
	var (
		unverified *tls.CertificateVerificationError
		authority  x509.UnknownAuthorityError
		hostname   x509.HostnameError
		invalid    x509.CertificateInvalidError
		broken     *net.OpError
	)
	switch {
	case errors.As(err, &broken) && broken.Op == tlsAlert:
		return "the server refuses our certificate or our version of TLS: check sslcert and sslkey, and the server's ssl_ca_file"
	case errors.As(err, &hostname):
		return "name the server in the database URL as its certificate does, or give it a certificate of that name; " +
			"sslmode=verify-ca with sslrootcert takes any name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the server's certificate or the one that sslrootcert names, and compare the clocks of both machines"
	case errors.As(err, &authority), errors.As(err, &unverified), errors.As(err, &invalid):
		return "name the authority that signed the server's certificate with sslrootcert=FILE in the database URL" + unproved
	default:
		return ""
	}
}

// tlsAlert is the operation of an error with which crypto/tls passes on why the other
// side broke off; the type of the reason is its own (conn.go, readRecordOrCCS).
const tlsAlert = "remote error"

const noTLSAdvice = "turn ssl on at the server; where nobody else can reach the network between, sslmode=disable in the database URL goes without"

// unproved says whether a login that was to be proved broke off by a decision of the
// driver's: its errors for that have no type, unlike those of the network, of TLS and
// of the server.
func unproved(settings *pgconn.Config, err error) bool {
	if settings.ChannelBinding != "require" && settings.RequireAuth == "" {
		return false
	}
	var network net.Error
	var server *pgconn.PgError
	return !errors.As(err, &network) && !errors.As(err, &server) && distrustAdvice(err) == "" &&
		!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, errNoTLS) && !errors.Is(err, context.Canceled) && !errors.Is(err, pgconn.ErrReadOnlyConnection)
}

// demanded names what the database URL demands of a login.
func demanded(settings *pgconn.Config) string {
	var all []string
	if settings.ChannelBinding == "require" {
		all = append(all, "channel_binding=require")
	}
	if settings.RequireAuth != "" {
		all = append(all, "require_auth="+settings.RequireAuth)
	}
	return strings.Join(all, " and ")
}

func unprovedAdvice(settings *pgconn.Config) string {
	return fmt.Sprintf("the database URL says %s: make sure that nobody stands between us and the server, such as a proxy that ends TLS, "+
		"and that pg_hba.conf asks this role for scram-sha-256", demanded(settings))
}
