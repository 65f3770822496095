// Package program holds what the server's and the agent's programs have in
// common: where their settings come from, and how they log.
package program

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Source says where a program's settings come from besides its flags, of which
// "config" names the file.
type Source struct {
	// Program is its name, for messages.
	Program string
	// EnvPrefix begins the names of its variables ("CONFINE_AGENT_").
	EnvPrefix string
	// DefaultConfig is read when it exists and no other file is named.
	DefaultConfig string
	// Sections are parts of the file that no flag stands for, by name: pointers
	// to what they are read into.
	Sections map[string]any
}

// Read merges file, environment and flags, the last being strongest, into
// settings, whose koanf tags are the names of the flags.
func (s Source) Read(flags *pflag.FlagSet, settings any) error {
	k := koanf.New(".")
	path, err := s.configPath(flags)
	if err != nil {
		return err
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	if err := s.known(k, flags, path); err != nil {
		return err
	}
	environment := env.Provider(".", env.Opt{Prefix: s.EnvPrefix, TransformFunc: func(key, value string) (string, any) {
		return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, s.EnvPrefix)), "_", "-"), value
	}})
	if err := k.Load(environment, nil); err != nil {
		return fmt.Errorf("read environment: %w", err)
	}
	if err := k.Load(posflag.Provider(flags, ".", k), nil); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	if err := k.Unmarshal("", settings); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return s.readSections(k, path)
}

// readSections reads what no flag stands for; a name in it that isn't known is
// an error.
func (s Source) readSections(k *koanf.Koanf, path string) error {
	for name, into := range s.Sections {
		if !k.Exists(name) {
			continue
		}
		conf := koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
			ErrorUnused: true, WeaklyTypedInput: true, Result: into, TagName: "koanf",
		}}
		if err := k.UnmarshalWithConf(name, into, conf); err != nil {
			return fmt.Errorf("read configuration %s: %s: %w", path, name, err)
		}
	}
	return nil
}

// configPath returns the file to read, "" when there is none.
func (s Source) configPath(flags *pflag.FlagSet) (string, error) {
	path, err := flags.GetString("config")
	if err != nil {
		return "", err
	}
	if path == "" {
		path = os.Getenv(s.EnvPrefix + "CONFIG")
	}
	if path != "" {
		return path, nil
	}
	if _, err := os.Stat(s.DefaultConfig); err == nil {
		return s.DefaultConfig, nil
	}
	return "", nil
}

// known refuses names in a file that no flag has: a typing error must not be
// silently without effect.
func (s Source) known(k *koanf.Koanf, flags *pflag.FlagSet, path string) error {
	for _, key := range k.Keys() {
		section, _, _ := strings.Cut(key, ".")
		if _, ok := s.Sections[section]; !ok && flags.Lookup(key) == nil {
			return fmt.Errorf("read configuration %s: unknown setting %q; see %s --help for the names", path, key, s.Program)
		}
	}
	return nil
}

// NewLogger returns a logger of a level (debug, info, warn, error) and a format
// (text, json).
func NewLogger(levelName, format string, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(levelName)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", levelName)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("log format %q: want text or json", format)
	}
}
