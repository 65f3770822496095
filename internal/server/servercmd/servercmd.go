// Package servercmd is the command line of confine-server.
package servercmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/program"
	"github.com/confinehq/confine/internal/server"
	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/internal/version"
)

// New returns the command. It logs to stderr.
func New(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "confine-server",
		Short: "Analyse what agents see, and make and keep seccomp profiles",
		Long: `confine-server waits for agents and operators. It has nodes run images, analyses
what they loaded, and keeps the profiles that come out of it.

The first start makes the data folder with a certificate authority in it. Nodes
and people on other machines join with a token ('confinectl token create');
local users come through the Unix socket.

Settings come from flags, then CONFINE_SERVER_* variables (CONFINE_SERVER_DATA),
then the file of --config.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate("confine-server {{.Version}}\n")
	addFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := readSettings(cmd.Flags())
		if err != nil {
			return err
		}
		return run(cmd.Context(), s, stderr)
	}
	return cmd
}

func run(ctx context.Context, s settings, stderr io.Writer) error {
	log, err := program.NewLogger(s.LogLevel, s.LogFormat, stderr)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Config{Dir: s.Data, URL: s.NATS, MaxObjects: s.MaxObjects << 20})
	if err != nil {
		return err
	}
	defer st.Close()
	ca, err := pki.OpenCA(filepath.Join(s.Data, "ca"), s.CertificateTTL)
	if err != nil {
		return err
	}
	srv, err := server.New(ctx, server.Config{Store: st, CA: ca, AgentGrace: s.AgentGrace, Logger: log})
	if err != nil {
		return err
	}
	listeners, err := listen(s, ca)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String(), "tls", l.TLS != nil)
	}
	log.Info("started", "version", version.String(), "data", s.Data)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("cannot tell systemd that the server is ready", "error", err)
	}
	stopping := context.AfterFunc(ctx, func() {
		log.Info("stopping")
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	})
	defer stopping()
	err = srv.Serve(ctx, listeners...)
	log.Info("stopped")
	return err
}

// listen opens every way in, or none.
func listen(s settings, ca *pki.CA) (all []server.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	if s.Listen != "" {
		config, err := ca.ServerTLS(s.San)
		if err != nil {
			return all, err
		}
		l, err := listenTCP(s.Listen)
		if err != nil {
			return all, fmt.Errorf("listen on %s: %w; choose another address with --listen", s.Listen, err)
		}
		all = append(all, server.Listener{Listener: l, TLS: config})
	}
	if s.Socket != "" {
		l, err := listenUnix(s.Socket, s.SocketGroup)
		if err != nil {
			return all, fmt.Errorf("listen on %s: %w", s.Socket, err)
		}
		all = append(all, server.Listener{Listener: l})
	}
	return all, nil
}
