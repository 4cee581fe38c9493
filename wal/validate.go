package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// nameBytes is what Postgres keeps of a name. It cuts a longer one with a notice
// and then does not find it again.
const nameBytes = 63

// Validate finds every problem that shows without a server, as usage errors
// joined into one, or gives nil.
func (c Config) Validate() error {
	errs := []error{CheckSlotName(c.Slot), validateName("publication", c.Publication)}
	if len(c.Tables) == 0 && c.MessagePrefix == "" {
		errs = append(errs, fault.NewUsage(errors.New("no outbox table is named"), "name one with --table, or --message-prefix"))
	}
	if c.MessagePrefix != "" {
		errs = append(errs, validateName("message prefix", c.MessagePrefix))
	}
	seen := map[string]bool{}
	for _, t := range c.Tables {
		errs = append(errs, validateTable(t))
		if name := t.display(); seen[name] {
			errs = append(errs, fault.NewUsage(fmt.Errorf("table %s is named twice", name), "name it once"))
		} else {
			seen[name] = true
		}
	}
	if _, err := ParseDatabase(c.Database); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// CheckSlotName gives a usage error for a name that Postgres does not accept
// (slot.c, ReplicationSlotValidateName), before it stands in any command.
func CheckSlotName(name string) error {
	valid := len(name) >= 1 && len(name) <= nameBytes
	for _, c := range []byte(name) {
		valid = valid && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_')
	}
	if valid {
		return nil
	}
	return fault.NewUsage(fmt.Errorf("%q is not a slot name", name),
		"use 1 to 63 lower-case letters, digits and underscores")
}

func validateName(what, name string) error {
	if name != "" && len(name) <= nameBytes && !strings.Contains(name, "\x00") {
		return nil
	}
	return fault.NewUsage(fmt.Errorf("%q is not a name for a %s", name, what), "use 1 to 63 bytes without a zero byte")
}

func validateTable(t Table) error {
	errs := []error{validateName("schema", t.Schema), validateName("table", t.Name)}
	seen := map[string]bool{}
	for _, column := range t.Columns {
		errs = append(errs, validateName("column", column.Name))
		if seen[column.Name] {
			errs = append(errs, fault.NewUsage(
				fmt.Errorf("column %s of table %s is named twice", displayName(column.Name), t.display()), "name it once"))
		}
		seen[column.Name] = true
	}
	return errors.Join(errs...)
}

// ParseDatabase reads a libpq URI or key=value string, on top of what the PG*
// environment variables say. A text that cannot be used is a usage error. Every
// connection of ours begins here, and with it what a host must prove: one that is not
// local proves who it is (sslmode=verify-full), unless the text says otherwise.
//
// The error repeats nothing of the text. In a text that does not parse nobody
// knows where the password begins or ends, and one that parses by luck, such as
// postgres://user:pa@ss@host, would put half of the password into the host and
// from there into every error.
func ParseDatabase(text string) (*pgconn.Config, error) {
	if advice := strayText(text); advice != "" {
		return nil, badDatabase(nil, advice)
	}
	settings, err := pgconn.ParseConfig(text)
	if err != nil {
		return nil, badDatabase(err, "want postgres://user:password@host:5432/database?sslmode=verify-full or "+
			"the same as key=value pairs, with special characters percent-encoded or quoted")
	}
	options := pgconn.ParseConfigOptions{ConnStringAllowedKeys: allowedKeys()}
	if _, err := pgconn.ParseConfigWithOptions(text, options); err != nil {
		return nil, badDatabase(nil, "it has a parameter that is none of "+strings.Join(allowedKeys(), ", ")+
			"; server settings go into options=-c name=value")
	}
	if err := verifyRemote(settings, text); err != nil {
		return nil, err
	}
	attended(settings, settings.DialFunc)
	return settings, nil
}

// badDatabase keeps of the cause only the file that could not be read, if that was
// the problem: its name is a setting of its own.
func badDatabase(cause error, advice string) error {
	err := errors.New("the database URL cannot be used")
	if file, ok := errors.AsType[*fs.PathError](cause); ok {
		err = fmt.Errorf("the database URL cannot be used: %w", file)
		advice = "check the files that sslrootcert, sslcert and sslkey name"
	}
	return fault.NewUsage(err, advice)
}

// strayText finds what libpq's rules let through although it is a mistake, and
// gives the advice for it.
func strayText(text string) (advice string) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || strings.ContainsAny(scheme, "= '") {
		return "" // key=value
	}
	if scheme != "postgres" && scheme != "postgresql" {
		return "it begins with another scheme than postgres://"
	}
	const encode = "percent-encode special characters in user, password and database, such as %40 for @ and %2F for /"
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		if user, _, _ := strings.Cut(rest[:i], ":"); strings.Contains(user, "?") {
			return encode
		}
		rest = rest[i+1:]
	}
	if hosts, _, _ := strings.Cut(rest, "?"); strings.Contains(hosts, "@") {
		return encode
	}
	return ""
}

// allowedKeys are libpq's parameters as far as pgconn acts on them. It would pass
// any other on to the server as a setting, so that a misspelt sslmode would go
// unnoticed until the server refuses the connection.
func allowedKeys() []string {
	return []string{
		"host", "port", "dbname", "user", "password", "passfile", "service", "servicefile", "connect_timeout",
		"target_session_attrs", "application_name", "client_encoding", "options", "channel_binding", "require_auth",
		"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcertmode", "sslnegotiation", "sslsni",
		"krbsrvname", "krbspn", "min_protocol_version", "max_protocol_version",
	}
}
