package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/confinehq/confine/internal/pki"
)

// unit is the agent's systemd unit.
const unit = "confine-agent.service"

// joinOptions are the flags of join.
type joinOptions struct {
	server, token, node, data, config string
	now                               bool
}

// newJoin returns the verb that makes a machine a node.
func newJoin() *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join --server HOST:PORT --token TOKEN",
		Short: "Join a server, once, so that the agent can be started as a service",
		Long: `join exchanges a token (confinectl token create on the server) for this node's
certificate, and writes server and node into the agent's configuration file.
With --now it enables and starts the service, too.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "server to join: `HOST:PORT`")
	f.StringVar(&o.token, "token", "", "join `token`; - reads it from standard input")
	f.StringVar(&o.node, "node", "", "`name` of this node (default the host name)")
	f.StringVar(&o.data, "data", "/var/lib/confine-agent", "`folder` of certificate and state")
	f.StringVar(&o.config, "config", defaultConfig, "configuration `file` to write server and node into")
	f.BoolVar(&o.now, "now", false, "enable and start the service ("+unit+")")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.run(cmd.Context(), cmd.InOrStdin(), cmd.ErrOrStderr())
	}
	return cmd
}

func (o *joinOptions) run(ctx context.Context, stdin io.Reader, out io.Writer) error {
	if err := o.complete(stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	if err := pki.Enroll(ctx, o.server, o.token, o.node, filepath.Join(o.data, "identity")); err != nil {
		return err
	}
	set := map[string]string{"server": o.server, "node": o.node}
	if o.data != "/var/lib/confine-agent" {
		set["data"] = o.data
	}
	if err := writeConfig(o.config, set); err != nil {
		return err
	}
	fmt.Fprintf(out, "node %s joined %s; configuration in %s\n", o.node, o.server, o.config)
	if !o.now {
		fmt.Fprintf(out, "start it: systemctl enable --now %s\n", unit)
		return nil
	}
	start := exec.CommandContext(ctx, "systemctl", "enable", "--now", unit)
	start.Stdout, start.Stderr = out, out
	if err := start.Run(); err != nil {
		return fmt.Errorf("start %s: %w; the node has joined: start confine-agent by other means", unit, err)
	}
	return nil
}

// complete checks what was given and fills in the rest.
func (o *joinOptions) complete(stdin io.Reader) error {
	if o.server == "" {
		return errors.New("--server HOST:PORT is missing")
	}
	if o.token == "-" {
		o.token = ""
		if _, err := fmt.Fscan(stdin, &o.token); err != nil {
			return errors.New("no token on standard input")
		}
	}
	if o.token == "" {
		return errors.New("--token is missing; make one on the server: confinectl token create")
	}
	if o.node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("read host name: %w; give the node a name with --node", err)
		}
		o.node = host
	}
	return nil
}

// writeConfig sets top-level values in a configuration file and leaves all
// else as it is, comments included. A line that sets the name, also one that
// is commented out, is replaced; without one the value is added.
func writeConfig(path string, set map[string]string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write configuration: %w", err)
	}
	for _, name := range []string{"server", "node", "data"} {
		value, ok := set[name]
		if !ok {
			continue
		}
		line, err := yaml.Marshal(map[string]string{name: value})
		if err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		text = setLine(text, name, line)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write configuration: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// setLine replaces the line that sets name, in force or commented out, or adds
// one at the end.
func setLine(text []byte, name string, line []byte) []byte {
	for _, form := range []string{`(?m)^%s:.*\n?`, `(?m)^#[ \t]*%s:.*\n?`} {
		at := regexp.MustCompile(fmt.Sprintf(form, regexp.QuoteMeta(name))).FindIndex(text)
		if at != nil {
			return append(append(append([]byte{}, text[:at[0]]...), line...), text[at[1]:]...)
		}
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return append(text, line...)
}
