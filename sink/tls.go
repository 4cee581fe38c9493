package sink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

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
		alert        tls.AlertError
		verification *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &classified):
		return err
	case errors.As(err, &verification), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid):
		return fault.NewOperator(err, "trust the broker's authority with "+trust+", and name brokers as their certificates do")
	case errors.As(err, &record):
		return fault.NewOperator(err, "the port speaks no TLS: check scheme and port, and security.protocol for kafka")
	case errors.As(err, &alert):
		return fault.NewOperator(err, "the broker refuses our certificate or our version of TLS: check "+ours)
	default:
		return err
	}
}
