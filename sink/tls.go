package sink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// brokerTLSError gives err a class where the two sides do not trust each other; trust
// and ours are the settings that name the broker's authority and our certificate.
func brokerTLSError(err error, trust, ours string) error {
	var (
		classified   *fault.Error
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
		record       tls.RecordHeaderError
		broken       *net.OpError
		verification *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &classified):
		return err
	case errors.As(err, &verification), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid):
		return fault.NewOperator(err, "trust the broker's authority with "+trust+", and name brokers as their certificates do")
	case errors.As(err, &record):
		return fault.NewOperator(err, "the port speaks no TLS: check scheme and port, and security.protocol for kafka")
	case errors.As(err, &broken) && broken.Op == "remote error": // crypto/tls, conn.go: what the other side broke off with
		return fault.NewOperator(err, "the broker refuses our certificate or our version of TLS: check "+ours)
	default:
		return err
	}
}

// tlsFiles are PEM files that a connection is encrypted with, and what to do about one
// that cannot be used.
type tlsFiles struct {
	authorities string // to trust; empty means the system's
	certificate string // our own; empty means none
	key         string // of the certificate, perhaps in the same file

	trustAdvice, ownAdvice string
}

// config reads the files. An unreadable one is a usage error.
func (f tlsFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.authorities != "" {
		pem, err := os.ReadFile(f.authorities)
		if err != nil {
			return nil, fault.NewUsage(fmt.Errorf("read the authorities to trust: %w", err), f.trustAdvice)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.NewUsage(fmt.Errorf("%s holds no certificate in PEM form", f.authorities), f.trustAdvice)
		}
	}
	if f.certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, fault.NewUsage(fmt.Errorf("read our certificate and key: %w", err), f.ownAdvice)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
