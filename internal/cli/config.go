package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// defaultServer is where a server on this machine listens for its local user.
const defaultServer = "unix:///run/confine/server.sock"

// configFile is what 'confinectl login' leaves in the user's configuration
// folder. Flags and environment variables count more.
type configFile struct {
	// Server is an address as --server takes it.
	Server string `yaml:"server"`
	// CertDir is the folder of the certificate.
	CertDir string `yaml:"cert_dir"`
}

// configDir is the user's own folder for Confine.
func (a *app) configDir() string {
	if dir := a.Getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "confine")
	}
	return filepath.Join(a.Getenv("HOME"), ".config", "confine")
}

func (a *app) configPath() string {
	return filepath.Join(a.configDir(), "confinectl.yaml")
}

func (a *app) readConfig() (configFile, error) {
	var c configFile
	data, err := os.ReadFile(a.configPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", a.configPath(), err)
	}
	return c, nil
}

func (a *app) writeConfig(c configFile) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.MkdirAll(a.configDir(), 0o700); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(a.configPath(), data, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// target is a server and what to show it.
type target struct {
	address string
	certDir string
}

func (t target) unix() bool { return strings.HasPrefix(t.address, "unix:") }

// target resolves flags, environment and configuration file, in this order.
func (a *app) target() (target, error) {
	c, err := a.readConfig()
	if err != nil {
		return target{}, err
	}
	return target{
		address: first(a.server, a.Getenv("CONFINE_SERVER"), c.Server, defaultServer),
		certDir: first(a.certDir, a.Getenv("CONFINE_CERT_DIR"), c.CertDir, filepath.Join(a.configDir(), "certs")),
	}, nil
}

// first returns the first of values that isn't empty.
func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
