package main

// securityMutants are mistakes in who is believed, and in what may be read on the way.
//
//nolint:gochecknoglobals // a table
var securityMutants = []mutant{
	{
		name: "security: a host that is not local proves nothing",
		file: "wal/validate.go", old: "\tif err := verifyRemote(settings, text); err != nil {\n\t\treturn nil, err\n\t}\n", new: "",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: clear text follows a server's no to TLS",
		file: "wal/tls.go", old: "\t\tcase a.TLSConfig != nil: // what", new: "\t\tcase a.TLSConfig == nil:\n\t\t\tkept = append(kept, a)\n\t\tcase true: // what",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: the host behind a local one is local too",
		file: "wal/tls.go", old: "\tif isLocal(a.Host) || a.TLSConfig == nil", new: "\tif isLocal(settings.Host) || a.TLSConfig == nil",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: an sslmode that is named is overruled",
		file: "wal/tls.go", old: "\tif namesMode(text) || !slices", new: "\tif !slices",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: what begins like localhost is local",
		file: "wal/tls.go", old: "strings.EqualFold(strings.TrimSuffix(host, \".\"), \"localhost\")", new: "strings.HasPrefix(strings.ToLower(host), \"localhost\")",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: a server that takes no TLS is waited for",
		file: "wal/tls.go", old: "\tif d.asked && b[0] == 'N' {", new: "\tif false {",
		pkg: "./wal", test: "TestAServerWithoutTLS",
	},
	{
		name: "security: why the server refuses our certificate is not heard",
		file: "wal/tls.go", old: "\t\treturn len(b), nil // the read", new: "\t\treturn n, err // the read",
		pkg: "./test", test: "TestARoleMayLogInWithACertificate",
	},
	{
		name: "security: a login that is not bound is tried again",
		file: "wal/errors.go", old: "\tcase unproved(settings, cause):", new: "\tcase false:",
		pkg: "./test", test: "TestWhoStandsBetween",
	},
	{
		name: "security: a login need not be bound",
		file: "wal/connect.go", old: "\tif settings.ValidateConnect == nil {\n", new: "\tsettings.ChannelBinding = \"disable\"\n\tif settings.ValidateConnect == nil {\n",
		pkg: "./test", test: "TestWhoStandsBetween",
	},
}
