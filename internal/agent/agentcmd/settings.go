package agentcmd

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/confinehq/confine/internal/program"
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
	// monitors is a section of the file.
	monitors map[string]monitorSettings
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
	source := program.Source{
		Program: "confine-agent", EnvPrefix: envPrefix, DefaultConfig: defaultConfig,
		Sections: map[string]any{"monitors": &s.monitors},
	}
	if err := source.Read(flags, &s); err != nil {
		return s, err
	}
	if s.Server == "" {
		return s, errors.New("no server given: use --server HOST:PORT (or server: in the configuration file)")
	}
	if s.Node == "" {
		node, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("read host name: %w; give the node a name with --node", err)
		}
		s.Node = node
	}
	return s, nil
}
