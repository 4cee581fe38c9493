package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

// schemaID names the version of JSON Schema that editors know best.
const schemaID = "http://json-schema.org/draft-07/schema#"

// schema describes a --config file to an editor. It is made from the flags, as help is.
type schema struct {
	Schema     string              `json:"$schema"`
	Title      string              `json:"title"`
	Type       string              `json:"type"`
	Properties map[string]property `json:"properties"`
	Additional bool                `json:"additionalProperties"`
}

// property describes one setting.
type property struct {
	Description string   `json:"description"`
	Types       any      `json:"type,omitempty"`
	Pattern     string   `json:"pattern,omitempty"`
	Enum        []string `json:"enum,omitempty"`
	Default     string   `json:"default,omitempty"`
	Items       *items   `json:"items,omitempty"`
}

type items struct {
	Type string `json:"type"`
}

// durationPattern is what time.ParseDuration understands, or a variable.
const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$|\$\{`

func (p *program) schema() schema {
	s := schema{
		Schema: schemaID, Title: "Settings of outboxcdc", Type: "object",
		Properties: make(map[string]property),
	}
	for name, f := range p.knownFlags() {
		if name == "config" {
			continue
		}
		s.Properties[name] = propertyOf(f)
		if _, isText := f.(*cli.StringFlag); isText {
			s.Properties[name+"-file"] = property{Description: "a file whose first line is the value of " + name, Types: "string"}
		}
	}
	return s
}

func propertyOf(f cli.Flag) property {
	described := property{Description: usageOf(f)}
	switch f := f.(type) {
	case *cli.BoolFlag:
		described.Types = []string{"boolean", "string"}
	case *cli.StringSliceFlag:
		described.Types, described.Items = []string{"array", "object", "string"}, &items{Type: "string"}
	case *cli.DurationFlag:
		described.Types, described.Pattern, described.Default = "string", durationPattern, defaultText(f)
	case *cli.StringFlag:
		described.Types, described.Default = "string", f.Value
	default:
		described.Types = []string{"number", "string"}
	}
	return described
}

// usageOf is what help says of a flag, without the marks around its value's name.
func usageOf(f cli.Flag) string {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	return strings.ReplaceAll(documented.GetUsage(), "`", "")
}

// defaultText is a flag's default as help shows it, without quotes.
func defaultText(f cli.Flag) string {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	if text := documented.GetDefaultText(); text != "" {
		return strings.Trim(text, `"`)
	}
	if _, isBool := f.(*cli.BoolFlag); isBool {
		return "false"
	}
	return strings.Trim(documented.GetValue(), `"`)
}

// placeholderOf is the name of a flag's value in help; empty for a flag that takes none.
func placeholderOf(f cli.Flag) string {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok || !documented.TakesValue() {
		return ""
	}
	if name := regexp.MustCompile("`([^`]+)`").FindStringSubmatch(documented.GetUsage()); name != nil {
		return name[1]
	}
	return "VALUE"
}

func (p *program) printSchema(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	text, err := json.MarshalIndent(p.schema(), "", "  ")
	if err != nil {
		return fmt.Errorf("write the schema: %w", err)
	}
	_, err = fmt.Fprintf(p.out, "%s\n", text)
	return err
}
