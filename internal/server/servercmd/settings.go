package servercmd

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/confinehq/confine/internal/program"
)

const (
	envPrefix = "CONFINE_SERVER_"
	// defaultConfig is read when it exists and no other file is named.
	defaultConfig = "/etc/confine/server.yaml"
)

// settings are what flags, environment and file say. The names in the file are
// those of the flags.
type settings struct {
	Data           string        `koanf:"data"`
	Listen         string        `koanf:"listen"`
	San            []string      `koanf:"san"`
	Socket         string        `koanf:"socket"`
	SocketGroup    string        `koanf:"socket-group"`
	NATS           string        `koanf:"nats"`
	MaxObjects     int64         `koanf:"max-objects"`
	CertificateTTL time.Duration `koanf:"certificate-ttl"`
	AgentGrace     time.Duration `koanf:"agent-grace"`
	LogLevel       string        `koanf:"log-level"`
	LogFormat      string        `koanf:"log-format"`
}

func addFlags(f *pflag.FlagSet) {
	f.String("config", "", "configuration `file` in YAML (default "+defaultConfig+" when it exists)")
	f.String("data", "/var/lib/confine-server", "`folder` of everything that is kept; made at the first start, with the certificate authority")
	f.String("listen", ":7443", "`address` for agents and operators, mutual TLS; \"\" for none")
	f.StringSlice("san", nil, "`host` names and addresses in the server's certificate (default this machine's own)")
	f.String("socket", "/run/confine/server.sock", "Unix `socket` for local users, who are administrators; \"\" for none")
	f.String("socket-group", "", "`group` that may use the socket, besides root")
	f.String("nats", "", "`URL` of a NATS cluster with JetStream (default one inside this process)")
	f.Int64("max-objects", 0, "limit of the uploaded objects together, in `MiB` (default 32768)")
	f.Duration("certificate-ttl", 0, "life of certificates of agents and operators (default 168h)")
	f.Duration("agent-grace", 0, "`time` that a run waits for its agent to come back (default 1m)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
}

// readSettings merges file, environment and flags, the last being strongest.
func readSettings(flags *pflag.FlagSet) (settings, error) {
	var s settings
	source := program.Source{Program: "confine-server", EnvPrefix: envPrefix, DefaultConfig: defaultConfig}
	if err := source.Read(flags, &s); err != nil {
		return s, err
	}
	return s, s.complete()
}

// complete checks the settings and fills in what depends on the machine.
func (s *settings) complete() error {
	if s.Listen == "" && s.Socket == "" {
		return fmt.Errorf("nothing to listen on: give --listen or --socket")
	}
	if s.Listen != "" {
		if _, _, err := net.SplitHostPort(s.Listen); err != nil {
			return fmt.Errorf("--listen %q is not HOST:PORT: %w", s.Listen, err)
		}
	}
	if s.MaxObjects < 0 || s.CertificateTTL < 0 || s.AgentGrace < 0 {
		return fmt.Errorf("--max-objects, --certificate-ttl and --agent-grace can't be negative")
	}
	s.San = slices.DeleteFunc(s.San, func(h string) bool { return strings.TrimSpace(h) == "" })
	if len(s.San) == 0 {
		s.San = ownHosts(s.Listen)
	}
	return nil
}

// ownHosts lists the names and addresses by which others may dial this
// machine.
func ownHosts(listen string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		hosts = append(hosts, host)
	}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				hosts = append(hosts, ip.IP.String())
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
