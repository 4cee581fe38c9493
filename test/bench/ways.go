package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os/exec"
	"time"
)

// way is how a contestant reaches Postgres.
type way string

const (
	overTCP  way = ""
	overTLS  way = "TLS"
	overUnix way = "a Unix socket"
)

// String is for the table.
func (w way) String() string {
	if w == overTCP {
		return "TCP"
	}
	return string(w)
}

// measureWays drains one backlog over each kind of connection. Coalescing works in
// another way on each of them.
func measureWays(ctx context.Context, b *bench) error {
	if !b.local() {
		b.printf("the ways to Postgres take a server on this machine\n")
		return nil
	}
	if err := b.takeTLS(ctx); err != nil {
		return fmt.Errorf("let the server take TLS: %w", err)
	}
	var all []contestant
	build := runBuild(b.binary)
	for _, w := range []way{overTCP, overTLS, overUnix} {
		streams := func(ctx context.Context, b *bench, e entry) *exec.Cmd { return build(ctx, b, e.over(w)) }
		all = append(all, contestant{name: ours + " over " + w.String(), sends: true, run: streams, counts: scrapeMallocs})
		if b.recv != "" {
			listens := func(ctx context.Context, b *bench, e entry) *exec.Cmd { return runRecvlogical(ctx, b, e.over(w)) }
			all = append(all, contestant{name: recvlogical + " over " + w.String(), run: listens})
		}
	}
	for _, s := range mainShapes() {
		results, n, err := b.contest(ctx, s, b.events/2, all)
		if err != nil {
			return err
		}
		rows := [][]string{{"contestant", "k events/s", "of outboxcdc over TCP", "CPU µs an event", "peak MiB", "walsender busy"}}
		for _, c := range all {
			mine := results[c.name]
			rows = append(rows, []string{
				c.name,
				shown(mine, thousands, "%.0f"),
				orDash(ratio(mine, results[all[0].name]), "%.2f"),
				shown(mine, func(r result) float64 { return r.cpu }, "%.2f"),
				shown(mine, func(r result) float64 { return r.peak }, "%.0f"),
				shown(mine, busy, "%.0f %%"),
			})
		}
		b.printf("\n%s, %d events, medians of %d rounds\n\n", s.name, n, b.rounds)
		b.table(rows)
	}
	return nil
}

// over is the same entry by another way.
func (e entry) over(w way) entry {
	e.way = w
	return e
}

// url is the database's, by the entry's way.
func (b *bench) url(e entry) string {
	at, err := url.Parse(b.postgres.URL(e.database))
	if err != nil { // it has just been printed from one
		return b.postgres.URL(e.database)
	}
	query := at.Query()
	switch e.way {
	case overTLS:
		query.Set("sslmode", "require")
	case overTCP:
	case overUnix:
		query.Set("host", b.postgres.DataDir())
		query.Set("port", at.Port())
		at.Host = ""
	}
	at.RawQuery = query.Encode()
	return at.String()
}

// place is what libpq's programs are told in their environment.
func (b *bench) place(e entry) []string {
	host, port, _ := net.SplitHostPort(b.postgres.Address())
	mode := "disable"
	switch e.way {
	case overTLS:
		mode = "require"
	case overTCP:
	case overUnix:
		host = b.postgres.DataDir()
	}
	return []string{
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + b.postgres.User(), "PGPASSWORD=" + b.postgres.Password(), "PGSSLMODE=" + mode,
	}
}

// takeTLS gives the server a certificate that nobody is to believe, and turns ssl on.
func (b *bench) takeTLS(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The server writes its files itself: then they are its own.
	const write = "COPY (SELECT unnest(string_to_array('%s', E'\\n'))) TO PROGRAM 'umask 077; cat > %s'"
	for _, sql := range []string{
		fmt.Sprintf(write, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), "server.crt"),
		fmt.Sprintf(write, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), "server.key"),
		"ALTER SYSTEM SET ssl = on",
		"SELECT pg_reload_conf()",
	} {
		if err := b.onPostgres(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
