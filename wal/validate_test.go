package wal

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestOnlyNamesThatPostgresAcceptsAreSlotNames(t *testing.T) {
	for name, want := range map[string]bool{
		"orders": true, "_": true, "9": true, strings.Repeat("a", 63): true,
		"": false, "Orders": false, "or-ders": false, "or ders": false, "ordérs": false, "a;b": false, `a"`: false,
		"a'": false, "a\x00": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		err := CheckSlotName(name)
		if (err == nil) != want {
			t.Errorf("%q: %v, want valid %v", name, err, want)
		}
		if err != nil && fault.Classify(err) != fault.Usage {
			t.Errorf("%q is a %v error, want usage", name, fault.Classify(err))
		}
	}
}

func TestValidateFindsEveryProblemAtOnce(t *testing.T) {
	column := Column{Name: "a"}
	err := Config{
		Database: "mysql://h/d", Slot: "No", Publication: strings.Repeat("p", 64),
		Tables: []Table{{Schema: "", Name: "t"}, {Schema: "s", Name: "t", Columns: []Column{column, column}}, {Schema: "s", Name: "t"}},
	}.Validate()
	if fault.Classify(err) != fault.Usage {
		t.Fatalf("%v is %v, want usage", err, fault.Classify(err))
	}
	for _, want := range []string{
		`"No" is not a slot name`, "not a name for a publication", `"" is not a name for a schema`,
		"column a of table s.t is named twice", "table s.t is named twice", "another scheme",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q among the problems:\n%v", want, err)
		}
	}
	if err := (Config{Slot: "s", Publication: "p"}).Validate(); err == nil || !strings.Contains(err.Error(), "--table") {
		t.Errorf("without tables: %v", err)
	}
	good := Config{Slot: "s", Publication: `We"ird`, Tables: []Table{{Schema: "a b", Name: "c.d"}}}
	if err := good.Validate(); err != nil {
		t.Errorf("a valid configuration is refused: %v", err)
	}
}

func TestDatabaseURLErrorsRepeatNothing(t *testing.T) {
	const secret = "s3cret"
	for _, text := range []string{
		"postgres://u:s3cret@h:port/d",                 // no such port
		"postgres://u:s3cret@h:99999/d",                //
		"postgres://u:s3cret.h/d",                      // forgot the @: the password reads as port
		"postgres://u:pa@s3cret@h/d",                   // half of the password reads as host
		"postgres://u:pa/s3cret@h/d",                   // the other half as database
		"postgres://u:1/s3cret@h/d",                    // the same, and the port even is one
		"postgres://u:1/s3cret?x=y@h/d",                // half of it reads as parameter
		"postgres://h?password=s3cret@h",               // reads as user
		"postgres://u:%zzs3cret@h/d",                   // no such escape
		"postgres://u:s3cret@h/d?s3cret=1",             // no such parameter
		"postgres://u:s3cret@h/d?sslmode=s3cret",       // no such mode
		"postgres://u:s3cret@h/d?connect_timeout=s3cr", //
		"postgres://u:s3cret@h/d?sslrootcert=/nowhere",
		"postgres://u:s3cret@[::1/d",
		"postgresql://u:s3cret\x00@h/d",
		"mysql://u:s3cret@h/d",
		"http://s3cret",
		"u:s3cret@h/d",
		"s3cret",
		"host=h password=my s3cret user=u",
		"host=h password=my s3cret=x",
		"host=h password='s3cret",
		"host=h password=s3cret sslmode=maybe",
		"host=h password=s3cret port=x",
		"host=h passwort=s3cret",
		"password = 's3cret' dbname",
		"host=h password=s3cret target_session_attrs=s3cret",
		"host=h password=s3cret require_auth=s3cret",
		"host=h password=s3cret service=s3cret servicefile=nowhere",
		"postgres://u:s3cret@h/d?keepalives=1",
		"postgres://u:s3cret@h/d?replication=database",
	} {
		_, err := ParseDatabase(text)
		if err == nil {
			t.Errorf("%q is accepted", text)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error for %q repeats the secret: %v", text, err)
		}
		if fault.Classify(err) != fault.Usage || !strings.Contains(err.Error(), "the database URL cannot be used") {
			t.Errorf("%q: %v error %v, want usage", text, fault.Classify(err), err)
		}
	}
}

func TestDatabaseURLInEveryFormOfLibpqIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:p@h:5433/d":                                  "u p h 5433 d",
		"postgresql://u:p@h:5433,i:5434/d?sslmode=disable":         "u p h 5433 d",
		"postgres://u%40corp:p%2F%40%3F@h/d":                       "u@corp p/@? h 5432 d",
		"postgres://u:p?q@h/d":                                     "u p?q h 5432 d",
		"postgres://h/d?user=u%40corp&password=p":                  "u@corp p h 5432 d",
		"postgres://u:p@[::1]:5433/d":                              "u p ::1 5433 d",
		"host=h port=5433 user=u password='p q' dbname=d":          "u p q h 5433 d",
		"user=u password=a://b host=h dbname=d":                    "u a://b h 5432 d",
		"postgres://u:p@h/d?options=-c%20work_mem%3D1MB":           "u p h 5432 d",
		"postgres://u:p@h/d?target_session_attrs=primary&ssl=true": "u p h 5432 d",
	} {
		c, err := ParseDatabase(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		_, port, _ := strings.Cut(address("x", c.Port), ":")
		if got := strings.Join([]string{c.User, c.Password, c.Host, port, c.Database}, " "); got != want {
			t.Errorf("%q reads as %q, want %q", text, got, want)
		}
	}
}
