// Package standalone runs a server and an agent in one process, connected by
// memory: the same code as on two machines, for a laptop or a CI job.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/confinehq/confine/internal/agent"
	"github.com/confinehq/confine/internal/server"
	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// pipeSize is the buffer of a connection, in bytes.
	pipeSize = 1 << 20
	// maxMessage bounds one message, in bytes.
	maxMessage = 64 << 20
	// connectTime bounds the agent's way to the server.
	connectTime = 15 * time.Second
	// defaultData and defaultPlugins are where a package puts things.
	defaultData    = "/var/lib/confine/standalone"
	defaultPlugins = "/usr/lib/confine/plugins"
	// logFile is in the data folder.
	logFile = "standalone.log"
)

// Options of a standalone pair. All may be empty.
type Options struct {
	// Containerd is the socket of containerd.
	Containerd string
	// PluginDir holds monitor plugins; "plugins" beside this program when it
	// exists, /usr/lib/confine/plugins otherwise.
	PluginDir string
	// DataDir keeps results and facts; /var/lib/confine/standalone when empty.
	DataDir string
	// Monitor is the path of one more monitor's executable, which is its name,
	// too: it takes no other's place.
	Monitor string
}

// Start starts the pair and waits until they are connected. The connection is
// to the server, with everything allowed. Closing waits until everything that
// a run made is gone.
func Start(ctx context.Context, o Options) (grpc.ClientConnInterface, io.Closer, error) {
	if o.DataDir == "" {
		o.DataDir = defaultData
	}
	if o.PluginDir == "" {
		o.PluginDir = pluginDir()
	}
	// containerd's client has a log of its own, on standard error, that says
	// again what its errors say.
	if err := log.SetLevel("fatal"); err != nil {
		return nil, nil, fmt.Errorf("start standalone: %w", err)
	}
	p := &pair{}
	conn, err := p.start(ctx, o)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start standalone: %w", err), p.Close())
	}
	return conn, p, nil
}

// pair is a server and an agent.
type pair struct {
	store *store.Store
	log   *os.File
	conns []*grpc.ClientConn

	stopAgent, stopServer context.CancelFunc
	agent, server         errgroup.Group
	once                  sync.Once
	err                   error
}

func (p *pair) start(ctx context.Context, o Options) (*grpc.ClientConn, error) {
	// What has started ends by Close alone: a run that is cancelled still
	// needs both sides.
	ctx = context.WithoutCancel(ctx)
	var err error
	if p.store, err = store.Open(ctx, store.Config{Dir: o.DataDir}); err != nil {
		return nil, err
	}
	if p.log, err = os.Create(filepath.Join(o.DataDir, logFile)); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(p.log, nil))
	srv, err := server.New(ctx, server.Config{Store: p.store, Logger: log.With("part", "server")})
	if err != nil {
		return nil, err
	}
	var monitors map[string]agent.MonitorConfig
	if o.Monitor != "" {
		monitors = map[string]agent.MonitorConfig{o.Monitor: {Path: o.Monitor}}
	}
	name := nodeName()
	a, err := agent.New(agent.Config{
		Node: name, Containerd: o.Containerd, PluginDir: o.PluginDir, Monitors: monitors,
		StateDir: filepath.Join(o.DataDir, "agent"), Logger: log.With("part", "agent"),
	})
	if err != nil {
		return nil, err
	}
	memory := bufconn.Listen(pipeSize)
	serverCtx, stopServer := context.WithCancel(ctx)
	p.stopServer = stopServer
	p.server.Go(func() error { return srv.Serve(serverCtx, server.Listener{Listener: memory}) })
	agentConn, err := p.dial(memory)
	if err != nil {
		return nil, err
	}
	agentCtx, stopAgent := context.WithCancel(ctx)
	p.stopAgent = stopAgent
	p.agent.Go(func() error { return a.Run(agentCtx, agentConn) })
	conn, err := p.dial(memory)
	if err != nil {
		return nil, err
	}
	return conn, connected(ctx, conn, name)
}

func (p *pair) dial(memory *bufconn.Listener) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///standalone",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return memory.DialContext(ctx) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err == nil {
		p.conns = append(p.conns, conn)
	}
	return conn, err
}

// connected waits for the agent to be there.
func connected(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	client := confinev1.NewOperatorServiceClient(conn)
	for {
		list, err := client.ListNodes(ctx, &confinev1.ListNodesRequest{})
		if err != nil {
			return fmt.Errorf("wait for the agent: %w", err)
		}
		for _, n := range list.GetNodes() {
			if n.GetName() == name && n.GetConnected() {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("the agent does not connect to its server; see " + logFile + " in the data folder")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Close implements io.Closer. The server goes first: it has the agent remove
// what its runs made.
func (p *pair) Close() error {
	p.once.Do(func() { p.err = p.close() })
	return p.err
}

func (p *pair) close() error {
	var errs []error
	if p.stopServer != nil {
		p.stopServer()
		errs = append(errs, p.server.Wait())
	}
	if p.stopAgent != nil {
		p.stopAgent()
		errs = append(errs, p.agent.Wait())
	}
	for _, c := range p.conns {
		errs = append(errs, c.Close())
	}
	if p.store != nil {
		p.store.Close()
	}
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	return errors.Join(errs...)
}

// pluginDir finds the monitors that belong to this program.
func pluginDir() string {
	if self, err := os.Executable(); err == nil {
		// In a checkout, and below the prefix that this program is installed in.
		for _, rel := range []string{"plugins", "../lib/confine/plugins"} {
			dir := filepath.Join(filepath.Dir(self), rel)
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				return dir
			}
		}
	}
	return defaultPlugins
}

// nodeName is the host's name in the letters that a node's can have.
func nodeName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "localhost"
	}
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	clean = strings.Trim(clean[:min(len(clean), 63)], ".-_")
	if clean == "" {
		return "localhost"
	}
	return clean
}
