package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// A setting comes from four places: the command line, the environment, the file that
// --config names, and the default, the first that has it. All of them know it by the
// name of its flag.

func configFlag() cli.Flag {
	return text("config", "", "YAML `FILE` with settings under the names of the flags; flags and environment win over it")
}

// addConfig gives each command --config, and what is in the file before it runs.
func (p *program) addConfig(commands []*cli.Command) []*cli.Command {
	for _, command := range commands {
		command.Subcommands = p.addConfig(command.Subcommands)
		if len(command.Flags) > 0 {
			command.Flags = append(slices.Clone(command.Flags), configFlag())
			command.Before = p.configure
		}
	}
	return commands
}

// configure sets the flags that neither command line nor environment have set, from
// NAME_FILE variables and from the file. A file may hold settings of other commands.
func (p *program) configure(c *cli.Context) error {
	if err := errors.Join(p.misspelt(), p.configureFromSecrets(c)); err != nil {
		return err
	}
	path := c.String("config")
	if path == "" {
		return nil
	}
	settings, err := readSettings(path, p.knownFlags())
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if !hasFlag(c, name) || isGiven(c, name) {
			continue
		}
		p.sources[name] = path
		for _, value := range settings[name].values {
			if c.Set(name, value) != nil { // its error repeats the value
				errs = append(errs, fault.NewUsage(
					fmt.Errorf("%s: the value of %s cannot be used", settings[name].place, name), helpAdvice(c)))
			}
		}
	}
	return errors.Join(errs...)
}

func hasFlag(c *cli.Context, name string) bool {
	return slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == name })
}

// isGiven says whether command line or environment have set a flag. A text that is
// set to nothing counts as not set.
func isGiven(c *cli.Context, name string) bool {
	switch value := c.Value(name).(type) {
	case string:
		return value != "" && c.IsSet(name)
	case cli.StringSlice:
		return len(filled(value.Value())) > 0
	default:
		return c.IsSet(name)
	}
}

// filled leaves out the empty ones of a list.
func filled(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" })
}

// configureFromSecrets reads the files that OUTBOXCDC_…_FILE variables name, which is
// how secrets are mounted into a container.
func (p *program) configureFromSecrets(c *cli.Context) error {
	var errs []error
	for _, f := range c.Command.Flags {
		if _, isText := f.(*cli.StringFlag); !isText {
			continue
		}
		name := f.Names()[0]
		variable := twin(name) + "_FILE"
		path := os.Getenv(variable)
		if path == "" {
			continue
		}
		if os.Getenv(twin(name)) != "" {
			errs = append(errs, fault.NewUsage(fmt.Errorf("%s and %s are both set", twin(name), variable), "unset one of them"))
			continue
		}
		value, err := readSecret(variable, path)
		if err == nil && !isGiven(c, name) {
			p.sources[name] = variable
			err = c.Set(name, value)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readSecret is the first line of a file. Editors and tools end it with a line break.
func readSecret(what, path string) (string, error) {
	content, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return "", fault.NewUsage(fmt.Errorf("%s: %w", what, pathReason(path, err)), "name a file that this user may read")
	}
	value, _, _ := strings.Cut(string(content), "\n")
	if value = strings.TrimSuffix(value, "\r"); value == "" {
		return "", fault.NewUsage(fmt.Errorf("%s: the first line of %s is empty", what, path), "write the value into its first line")
	}
	return value, nil
}

func pathReason(path string, err error) error {
	if reason, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("read %s: %w", path, reason.Err)
	}
	return err
}

// setting is what a file says of one flag; place is file:line.
type setting struct {
	place  string
	values []string
}

// readSettings reads a file and gives every problem in it at once. known are the flags
// of all commands, by name.
func readSettings(path string, known map[string]cli.Flag) (map[string]setting, error) {
	content, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fault.NewUsage(fmt.Errorf("--config: %w", pathReason(path, err)), "name a file that this user may read")
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fault.NewUsage(fmt.Errorf("%s is not YAML: %s", path, yamlProblem(err)), "write it as name: value, a line each")
	}
	settings := make(map[string]setting)
	if len(document.Content) == 0 { // empty, or comments only
		return settings, nil
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fault.NewUsage(fmt.Errorf("%s holds no settings", path), "write it as name: value, a line each")
	}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		place := fmt.Sprintf("%s:%d", path, key.Line)
		if err := addSetting(settings, known, place, key.Value, value); err != nil {
			errs = append(errs, err)
		}
	}
	return settings, errors.Join(errs...)
}

// yamlProblem is where the library stopped. The rest of its text quotes the file,
// which may hold a password.
func yamlProblem(err error) string {
	if line := regexp.MustCompile(`line \d+`).FindString(err.Error()); line != "" {
		return "it stops making sense at " + line
	}
	return "it makes no sense"
}

func addSetting(settings map[string]setting, known map[string]cli.Flag, place, key string, value *yaml.Node) error {
	name, fromFile := key, false
	flag, ok := known[name]
	if base, isFile := strings.CutSuffix(key, "-file"); !ok && isFile {
		if flag, ok = known[base].(*cli.StringFlag); ok {
			name, fromFile = base, true
		}
	}
	if !ok || name == "config" {
		return unknownKey(place, key, known)
	}
	if _, twice := settings[name]; twice {
		return fault.NewUsage(fmt.Errorf("%s: %s is set twice", place, name), "set it once")
	}
	values, err := valuesOf(place, name, flag, value)
	if err == nil && fromFile {
		values[0], err = readSecret(place+": "+key, values[0])
	}
	if err == nil && len(values) > 0 {
		settings[name] = setting{place: place, values: values}
	}
	return err
}

// unknownKey offers the nearest name, as long as it is near.
func unknownKey(place, key string, known map[string]cli.Flag) error {
	names := slices.Sorted(maps.Keys(known))
	advice := "the names are those of the flags, without dashes in front"
	if meant := nearest(key, names); meant != "" {
		advice = "do you mean " + meant + "?"
	}
	for _, name := range names {
		if strings.ReplaceAll(key, "_", "-") == name || strings.Trim(key, "-") == name {
			advice = "do you mean " + name + "?"
		}
	}
	return fault.NewUsage(fmt.Errorf("%s: %q is not a setting", place, key), advice)
}

// valuesOf turns YAML into what a command line would say: one value, or a list of
// them where a flag may be repeated; a mapping there is a list of name=value.
func valuesOf(place, name string, flag cli.Flag, node *yaml.Node) ([]string, error) {
	_, repeats := flag.(*cli.StringSliceFlag)
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return nil, nil
	case node.Kind == yaml.ScalarNode:
		value, err := expand(place, node.Value)
		return []string{value}, err
	case node.Kind == yaml.SequenceNode && repeats:
		return listOf(place, name, node.Content, 1)
	case node.Kind == yaml.MappingNode && repeats:
		return listOf(place, name, node.Content, 2)
	default:
		return nil, fault.NewUsage(fmt.Errorf("%s: %s takes one value", place, name), "write "+name+": value")
	}
}

func listOf(place, name string, nodes []*yaml.Node, step int) ([]string, error) {
	var values []string
	for i := 0; i+step <= len(nodes); i += step {
		var words []string
		for _, node := range nodes[i : i+step] {
			if node.Kind != yaml.ScalarNode {
				return nil, fault.NewUsage(fmt.Errorf("%s: an entry of %s is not a single value", place, name), "write one value an entry")
			}
			word, err := expand(place, node.Value)
			if err != nil {
				return nil, err
			}
			words = append(words, word)
		}
		values = append(values, strings.Join(words, "="))
	}
	return values, nil
}

// expand replaces ${NAME} by the variable of that name, and ${NAME:-text} by text when
// it is not set. A dollar sign of any other kind is itself; $${ gives ${.
func expand(place, value string) (string, error) {
	var missing error
	expanded := variable().ReplaceAllStringFunc(value, func(found string) string {
		if strings.HasPrefix(found, "$$") {
			return found[1:]
		}
		parts := variable().FindStringSubmatch(found)
		if content := os.Getenv(parts[1]); content != "" {
			return content
		}
		if parts[2] == "" {
			missing = fault.NewUsage(fmt.Errorf("%s: ${%s} is not set in the environment", place, parts[1]),
				"set it, or write ${"+parts[1]+":-value} for a default")
		}
		return parts[3]
	})
	return expanded, missing
}

func variable() *regexp.Regexp {
	return regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)
}

// knownFlags are the flags of all commands by name, but for help.
func (p *program) knownFlags() map[string]cli.Flag {
	known := make(map[string]cli.Flag)
	var add func(commands []*cli.Command)
	add = func(commands []*cli.Command) {
		for _, command := range commands {
			for _, f := range command.Flags {
				if name := f.Names()[0]; name != "help" && name != "yes" { // a file confirms nothing
					known[name] = f
				}
			}
			add(command.Subcommands)
		}
	}
	add(p.commands())
	return known
}

// redacted shows a setting without what is secret in it. A text that is not
// understood is not shown at all.
func redacted(name, value string) string {
	switch {
	case value == "" || !mayHoldSecrets(name):
		return value
	case !strings.Contains(value, "://") && !strings.Contains(value, "="):
		return value // such as a path, or the word database
	case !strings.Contains(value, "://"):
		return redactedPairs(value)
	}
	scheme, rest, _ := strings.Cut(value, "://")
	if !regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`).MatchString(scheme) {
		return "…"
	}
	address, query, hasQuery := strings.Cut(rest, "?")
	if at := strings.LastIndex(address, "@"); at >= 0 {
		user, _, hasPassword := strings.Cut(address[:at], ":")
		if hasPassword {
			user += ":…"
		}
		address = user + address[at:]
	}
	if !hasQuery {
		return scheme + "://" + address
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if key, _, _ := strings.Cut(pair, "="); isSecretName(key) {
			pairs[i] = key + "=…"
		}
	}
	return scheme + "://" + address + "?" + strings.Join(pairs, "&")
}

// redactedPairs keeps of a key=value string what names the place, and nothing else.
func redactedPairs(value string) string {
	shown := regexp.MustCompile(`\b(host|port|dbname|user|sslmode)\s*=\s*([A-Za-z0-9_.,/-]+)`).FindAllString(value, -1)
	if strings.Contains(value, "'") { // a quoted value may hold what looks like a pair
		return "…"
	}
	return strings.Join(append(shown, "…"), " ")
}

func mayHoldSecrets(name string) bool {
	return name == "database-url" || strings.Contains(name, "sink") || name == "checkpoint" || isSecretName(name)
}

func isSecretName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, ".client.id") || strings.HasSuffix(name, ".endpoint.url") {
		return false // of sasl.oauthbearer: who asks for a token, and whom; credentials are refused in it
	}
	for _, part := range []string{"password", "secret", "token", "jaas", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// quotedYAML writes a value so that YAML reads it as the text that it is.
func quotedYAML(value string) string {
	plain := regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./{}@…+-]*$`)
	if plain.MatchString(value) && value != "off" && value != "on" && value != "null" {
		return value
	}
	return strconv.Quote(value)
}
