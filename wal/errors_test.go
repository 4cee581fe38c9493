package wal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestFaultClassifiesBySQLSTATE(t *testing.T) {
	for code, want := range map[string]fault.Class{
		"08000": fault.Transient, "08006": fault.Transient, "08P01": fault.Transient,
		"53300": fault.Transient, "53100": fault.Transient, "58P01": fault.Transient, "55P03": fault.Transient,
		"57P01": fault.Transient, "57P02": fault.Transient, "57P03": fault.Transient, "57P05": fault.Transient,
		"40001": fault.Transient, "40P01": fault.Transient, "25006": fault.Transient, "42710": fault.Transient,
		"55006": fault.Transient, "XX000": fault.Transient, "99999": fault.Transient, "": fault.Transient,
		"28000": fault.Operator, "28P01": fault.Operator, "3D000": fault.Operator, "3F000": fault.Operator,
		"42501": fault.Operator, "42602": fault.Operator, "42704": fault.Operator, "42P01": fault.Operator,
		"42703": fault.Operator, "0A000": fault.Operator, "22023": fault.Operator, "55000": fault.Operator,
		"53400": fault.Operator, "57P04": fault.Operator, "XX001": fault.Operator,
		"22021": fault.Data, "22P05": fault.Data,
	} {
		err := Fault(fmt.Errorf("do it: %w", &pgconn.PgError{Code: code, Message: "it broke"}))
		if got := fault.Classify(err); got != want {
			t.Errorf("SQLSTATE %q is %v, want %v", code, got, want)
		}
		if f, _ := errors.AsType[*fault.Error](err); want != fault.Transient && f.Advice == "" {
			t.Errorf("SQLSTATE %q gives no way out: %v", code, err)
		}
		if !strings.Contains(err.Error(), "do it: ") || !strings.Contains(err.Error(), "it broke") {
			t.Errorf("SQLSTATE %q hides what happened: %v", code, err)
		}
		if busy := errors.Is(err, ErrSlotBusy); busy != (code == "55006") {
			t.Errorf("SQLSTATE %q is ErrSlotBusy: %v", code, busy)
		}
	}
}

func TestFaultLeavesAloneWhatHasAClassOrWasCancelled(t *testing.T) {
	classified := fmt.Errorf("outer: %w", fault.NewData(&pgconn.PgError{Code: "28P01"}, ""))
	cancelled := fmt.Errorf("read: %w", context.Canceled)
	for _, err := range []error{nil, classified, cancelled, io.ErrUnexpectedEOF, context.DeadlineExceeded} {
		if got := Fault(err); got != err { //nolint:errorlint // identity is the promise
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := fault.Classify(Fault(cancelled)); got != fault.Stopped {
		t.Errorf("a cancelled context is %v, want stopped", got)
	}
}

// pgconn's error of a refused connection holds the configuration, and its error of
// a text that does not parse holds the text.
func TestFaultLetsNoSecretThroughAnyDoor(t *testing.T) {
	settings, err := pgconn.ParseConfig("host=127.0.0.1 port=1 user=u password=s3cret dbname=d sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	_, refused := pgconn.ConnectConfig(t.Context(), settings)
	_, unparsed := pgconn.ParseConfig("host=h password=mine s3cret port=x")
	for _, cause := range []error{refused, unparsed, fmt.Errorf("open the store: %w", refused)} {
		err := Fault(cause)
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "s3cret") {
				t.Errorf("%T carries the password: %s", e, text)
			}
		}
		var connect *pgconn.ConnectError
		var parse *pgconn.ParseConfigError
		if errors.As(err, &connect) || errors.As(err, &parse) {
			t.Errorf("the chain of %v still holds the configuration", err)
		}
	}
	if got := fault.Classify(Fault(unparsed)); got != fault.Usage {
		t.Errorf("a text that does not parse is %v, want usage", got)
	}
}

func TestRejectedCertificateIsForTheOperator(t *testing.T) {
	settings := &pgconn.Config{Host: "db", Port: 5432, User: "u"}
	for _, cause := range []error{
		&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		x509.UnknownAuthorityError{},
		x509.HostnameError{Certificate: &x509.Certificate{}, Host: "db"},
		x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired},
		&net.OpError{Op: "remote error", Err: tls.AlertError(42)},
	} {
		err := refusal(settings, fmt.Errorf("tls error: %w", cause))
		if fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "ssl") {
			t.Errorf("%T becomes %v error %v", cause, fault.Classify(err), err)
		}
	}
	if got := fault.Classify(refusal(settings, io.EOF)); got != fault.Transient {
		t.Errorf("a server that goes away while connecting is %v, want transient", got)
	}
}

func TestRefusalNamesEveryHostAndReasonOnceOnOneLine(t *testing.T) {
	settings := &pgconn.Config{
		Host: "a", Port: 1, User: "u", Database: "My DB",
		Fallbacks: []*pgconn.FallbackConfig{{Host: "a", Port: 1}, {Host: "b", Port: 2}, {Host: "/run/pg", Port: 3}},
	}
	twice := errors.New("it is\nclosed")
	err := refusal(settings, errors.Join(twice, twice, errors.New("no route")))
	want := `connect to database "My DB" at a:1, b:2, /run/pg as role u: it is; closed; no route: ` +
		"check host and port in the database URL, and that the server runs and is reachable"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestWhoNamesNoDatabaseIsToldHowToNameOne(t *testing.T) {
	for _, name := range []string{"PGDATABASE", "PGSERVICE", "PGHOST", "PGPORT"} {
		t.Setenv(name, "")
	}
	t.Setenv("PGHOST", t.TempDir()) // where no server listens
	for text, told := range map[string]bool{"": true, "dbname=shop": false} {
		settings, err := ParseDatabase(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgconn.ConnectConfig(t.Context(), settings)
		err = Fault(err)
		if fault.Classify(err) != fault.Transient {
			t.Errorf("database %q: %v of class %v, want transient", text, err, fault.Classify(err))
		}
		for _, way := range []string{"no database is named", "--database-url", "OUTBOXCDC_DATABASE_URL", "PG* variables"} {
			if got := strings.Contains(err.Error(), way); got != told {
				t.Errorf("database %q: %v; says %q: %v, want %v", text, err, way, got, told)
			}
		}
	}
}
