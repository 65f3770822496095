// Package agentcmd is the command line of confine-agent.
package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/confinehq/confine/internal/agent"
	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/program"
	"github.com/confinehq/confine/internal/version"
)

// enrolTime bounds joining a server.
const enrolTime = 30 * time.Second

// gcPercent is half of Go's own: an agent has little memory of its own, and
// shares its node with what people run there.
const gcPercent = 50

// New returns the command. It logs to stderr.
func New(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "confine-agent",
		Short: "Run and watch containers on this node for a Confine server",
		Long: `confine-agent runs beside containerd. It dials the server, and on its command
runs images, has them watched, and runs them again under the profile that came
out of it.

A node joins once, with a token (confinectl token create on the server): with
'confine-agent join', or with --token at the first start. Later starts use the
certificate that the node got for it.

Settings come from flags, then CONFINE_AGENT_* variables (CONFINE_AGENT_SERVER),
then the file of --config.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetErr(stderr)
	cmd.SetVersionTemplate("confine-agent {{.Version}}\n")
	addFlags(cmd.Flags())
	cmd.AddCommand(newJoin())
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
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return fmt.Errorf("create data folder: %w", err)
	}
	monitors, err := monitorConfigs(s.monitors)
	if err != nil {
		return err
	}
	conn, identity, err := dial(ctx, s, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	a, err := agent.New(agent.Config{
		Node: s.Node, Containerd: s.Containerd, Namespace: s.Namespace, PluginDir: s.Plugins, Monitors: monitors,
		StateDir: filepath.Join(s.Data, "state"), Runtime: s.Runtime, RegistryHosts: s.RegistryHosts, Logger: log,
	})
	if err != nil {
		return err
	}
	log.Info("started", "version", version.String(), "node", s.Node, "server", s.Server)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("cannot tell systemd that the agent is ready", "error", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx, conn) })
	if identity != "" {
		g.Go(func() error {
			pki.KeepRenewed(ctx, identity, conn, func(err error) {
				log.Warn("certificate not renewed yet, trying again", "error", err)
			})
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		return nil
	})
	err = g.Wait()
	log.Info("stopped")
	return err
}

// dial prepares the connection to the server, joining it first when this node
// has no certificate yet. identity is the folder of the certificate, "" for a
// Unix socket.
func dial(ctx context.Context, s settings, log *slog.Logger) (conn *grpc.ClientConn, identity string, err error) {
	opts := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 10 * time.Second}, MinConnectTimeout: 5 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
	}
	if strings.HasPrefix(s.Server, "unix:") {
		// Only local users reach a Unix socket; its folder says which.
		conn, err = grpc.NewClient(s.Server, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		return conn, "", err
	}
	identity = filepath.Join(s.Data, "identity")
	if err := join(ctx, s, identity, log); err != nil {
		return nil, "", err
	}
	config, err := pki.ClientTLS(identity)
	if err != nil {
		return nil, "", err
	}
	conn, err = grpc.NewClient("dns:///"+s.Server, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
	return conn, identity, err
}

// join enrols the node when it has no certificate that can be used, or when a
// token for another name was given.
func join(ctx context.Context, s settings, identity string, log *slog.Logger) error {
	known, err := pki.ReadClient(identity)
	switch {
	case err == nil && known.Name == s.Node && time.Now().Before(known.Expires):
		return nil
	case s.Token == "" && err == nil && known.Name != s.Node:
		return fmt.Errorf("this node joined as %q; start the agent with --node %s, or join again with --token", known.Name, known.Name)
	case s.Token == "":
		if err == nil {
			err = errors.New("its certificate has expired")
		}
		return fmt.Errorf("node %s has not joined %s: %w; make a token on the server (confinectl token create) and start once with --token", s.Node, s.Server, err)
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	if err := pki.Enroll(ctx, s.Server, s.Token, s.Node, identity); err != nil {
		return err
	}
	log.Info("joined", "server", s.Server, "node", s.Node)
	return nil
}
