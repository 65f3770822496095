package agentcmd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const (
	envPrefix = "CONFINE_AGENT_"
	// defaultConfig is read when it exists and no other file is named.
	defaultConfig = "/etc/confine/agent.yaml"
)

// settings are what flags, environment and file say. The names in the file are
// those of the flags.
type settings struct {
	Server        string `koanf:"server"`
	Node          string `koanf:"node"`
	Token         string `koanf:"token"`
	Data          string `koanf:"data"`
	Containerd    string `koanf:"containerd"`
	Namespace     string `koanf:"namespace"`
	Plugins       string `koanf:"plugins"`
	Runtime       string `koanf:"runtime"`
	RegistryHosts string `koanf:"registry-hosts"`
	LogLevel      string `koanf:"log-level"`
	LogFormat     string `koanf:"log-format"`
}

func addFlags(f *pflag.FlagSet) {
	f.String("config", "", "configuration `file` in YAML (default "+defaultConfig+" when it exists)")
	f.String("server", "", "server to dial: `HOST:PORT`, or unix:///path of a local one")
	f.String("node", "", "`name` of this node (default the host name)")
	f.String("token", "", "join `token`, for the first start; CONFINE_AGENT_TOKEN keeps it out of process lists")
	f.String("data", "/var/lib/confine-agent", "`folder` of certificate and state")
	f.String("containerd", "/run/containerd/containerd.sock", "`socket` of containerd")
	f.String("namespace", "default", "containerd `namespace` of runs that name none")
	f.String("plugins", "/usr/lib/confine/plugins", "`folder` of the monitors")
	f.String("runtime", "runc", "OCI `runtime` that containerd uses")
	f.String("registry-hosts", "/etc/containerd/certs.d", "`folder` of hosts.toml files for pulls")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
}

// readSettings merges file, environment and flags, the last being strongest.
func readSettings(flags *pflag.FlagSet) (settings, error) {
	var s settings
	k := koanf.New(".")
	path, err := configPath(flags)
	if err != nil {
		return s, err
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return s, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	if err := known(k, flags, path); err != nil {
		return s, err
	}
	environment := env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: func(key, value string) (string, any) {
		return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, envPrefix)), "_", "-"), value
	}})
	if err := k.Load(environment, nil); err != nil {
		return s, fmt.Errorf("read environment: %w", err)
	}
	if err := k.Load(posflag.Provider(flags, ".", k), nil); err != nil {
		return s, fmt.Errorf("read flags: %w", err)
	}
	if err := k.Unmarshal("", &s); err != nil {
		return s, fmt.Errorf("read configuration: %w", err)
	}
	if s.Server == "" {
		return s, errors.New("no server given: use --server HOST:PORT (or server: in the configuration file)")
	}
	if s.Node == "" {
		if s.Node, err = os.Hostname(); err != nil {
			return s, fmt.Errorf("read host name: %w; give the node a name with --node", err)
		}
	}
	return s, nil
}

// configPath returns the file to read, "" when there is none.
func configPath(flags *pflag.FlagSet) (string, error) {
	path, err := flags.GetString("config")
	if err != nil {
		return "", err
	}
	if path == "" {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	if path != "" {
		return path, nil
	}
	if _, err := os.Stat(defaultConfig); err == nil {
		return defaultConfig, nil
	}
	return "", nil
}

// known refuses names in a file that no flag has: a typing error must not be
// silently without effect.
func known(k *koanf.Koanf, flags *pflag.FlagSet, path string) error {
	for _, key := range k.Keys() {
		if flags.Lookup(key) == nil {
			return fmt.Errorf("read configuration %s: unknown setting %q; see confine-agent --help for the names", path, key)
		}
	}
	return nil
}
