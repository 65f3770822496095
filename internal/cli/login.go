package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/pki"
)

func newLogin(a *app) *cobra.Command {
	var token, name string
	cmd := &cobra.Command{
		Use:   "login --server HOST:PORT --token TOKEN",
		Short: "Enrol this user at a server on another machine",
		Long: `login exchanges a one-time token for a certificate and remembers the server, so
that later commands need no --server. Tokens are made on the server:

  confinectl token create --role operator`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&token, "token", "", "one-time token of role operator or reader; - reads it from standard input")
	cmd.Flags().StringVar(&name, "name", "", "name in the certificate (default USER.HOST)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		server := first(a.server, a.Getenv("CONFINE_SERVER"))
		if _, _, err := net.SplitHostPort(server); err != nil || strings.HasPrefix(server, "unix:") {
			return usagef(cmd, "--server HOST:PORT is missing")
		}
		if token == "" {
			return usagef(cmd, "--token is missing")
		}
		if token == "-" {
			if _, err := fmt.Fscan(a.Stdin, &token); err != nil {
				return usagef(cmd, "no token on standard input")
			}
		}
		dir, err := filepath.Abs(first(a.certDir, a.Getenv("CONFINE_CERT_DIR"), filepath.Join(a.configDir(), "certs")))
		if err != nil {
			return fmt.Errorf("find certificate folder: %w", err)
		}
		if err := pki.Enroll(cmd.Context(), server, token, first(name, a.operatorName()), dir); err != nil {
			return err
		}
		if err := a.writeConfig(configFile{Server: server, CertDir: dir}); err != nil {
			return err
		}
		fmt.Fprintf(a.err, "enrolled at %s; certificate in %s, renewed by use\n", server, dir)
		return nil
	}
	return cmd
}

// operatorName is user and host in the letters that certificate names may
// have.
func (a *app) operatorName() string {
	host, _ := os.Hostname()
	name := first(a.Getenv("USER"), a.Getenv("LOGNAME"), "operator") + "." + first(host, "host")
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	if len(clean) > 63 {
		clean = clean[:63]
	}
	return strings.Trim(clean, ".-_")
}
