package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// ErrEnded means that the plugin's process ended although nobody asked it to.
var ErrEnded = errors.New("ended unexpectedly")

// HostConfig says which plugin to start and how.
type HostConfig struct {
	// Path of the executable.
	Path string
	// SHA256 is the hex digest that the executable must have; nothing else is
	// started. The digest that the file has now is pinned when it is empty.
	SHA256 string
	// Logger takes what the plugin logs; nothing is logged when it is nil.
	Logger *slog.Logger
	// Env is added to the plugin's environment, which otherwise holds PATH
	// alone.
	Env []string
}

// Client is a plugin process. Its methods are safe for concurrent use.
type Client struct {
	name   string
	sha256 string
	plugin *goplugin.Client
	rpc    confinev1.MonitorServiceClient
	dir    *folder // holds the plugin's socket
	pid    int

	done    chan struct{} // closed when the process has ended
	stop    chan struct{} // closed by Close
	once    sync.Once
	mu      sync.Mutex
	closing bool
}

// Start starts a plugin and returns when it answers. The process ends with
// Close, and with this process.
func Start(ctx context.Context, cfg HostConfig) (*Client, error) {
	name := nameOf(cfg.Path)
	sum, err := checksum(cfg.Path, cfg.SHA256)
	if err != nil {
		return nil, fmt.Errorf("start monitor %s: %w", name, err)
	}
	dir, err := newFolder()
	if err != nil {
		return nil, fmt.Errorf("start monitor %s: %w", name, err)
	}
	cmd := exec.Command(cfg.Path)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"TMPDIR=" + dir.path,
		goplugin.EnvUnixSocketDir + "=" + dir.path,
	}, cfg.Env...)
	// A group of its own: a Ctrl-C on the terminal is ours to handle, and what
	// the plugin starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c := &Client{
		name:   name,
		sha256: sum.hex,
		dir:    dir,
		done:   make(chan struct{}),
		stop:   make(chan struct{}),
		plugin: goplugin.NewClient(&goplugin.ClientConfig{
			HandshakeConfig:  handshake(),
			VersionedPlugins: versions(nil),
			Cmd:              cmd,
			SecureConfig:     sum.secure(),
			AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
			AutoMTLS:         true,
			SkipHostEnv:      true,
			Logger:           newLogger(cfg.Logger),
			Stderr:           io.Discard,
		}),
	}
	if err := c.start(ctx, cmd); err != nil {
		c.Close()
		return nil, fmt.Errorf("start monitor %s: %w", name, err)
	}
	return c, nil
}

// start launches the process from a thread that lives as long as the process
// does: the kernel sends the parent-death signal when the thread that forked
// ends, not when its process does.
func (c *Client) start(ctx context.Context, cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		rpc, err := c.dispense()
		if cmd.Process == nil {
			close(c.done)
			started <- err
			return
		}
		c.rpc, c.pid = rpc, cmd.Process.Pid
		started <- err
		c.reap()
	}()
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		<-started // bounded by go-plugin's own start timeout
		return ctx.Err()
	}
}

func (c *Client) dispense() (confinev1.MonitorServiceClient, error) {
	proto, err := c.plugin.Client()
	if err != nil {
		return nil, err
	}
	raw, err := proto.Dispense(service)
	if err != nil {
		return nil, err
	}
	return raw.(confinev1.MonitorServiceClient), nil
}

// reap waits for the process to end without collecting its status, which is
// go-plugin's to collect, then ends what the process may have left in its
// group.
func (c *Client) reap() {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	close(c.done)
}

// Name is the NAME of confine-monitor-NAME.
func (c *Client) Name() string { return c.name }

// SHA256 is the hex digest of the executable.
func (c *Client) SHA256() string { return c.sha256 }

// PID is the process id of the plugin.
func (c *Client) PID() int { return c.pid }

// Done is closed when the plugin's process has ended, asked to or not; Err
// tells which.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil while the plugin runs and after Close; otherwise it says that the
// plugin ended, and is ErrEnded.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil
	}
	return fmt.Errorf("monitor %s %w", c.name, ErrEnded)
}

// Close ends the plugin and waits for it. It can be called more than once.
func (c *Client) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		select {
		case <-c.done: // it had ended before: that stays an error
		default:
			c.closing = true
		}
		c.mu.Unlock()
		close(c.stop)
		c.plugin.Kill()
		c.dir.remove()
	})
	<-c.done
}

// Describe returns what the monitor can see on this host; its error says why
// it can't work.
func (c *Client) Describe(ctx context.Context) (*confinev1.DescribeResponse, error) {
	d, err := c.rpc.Describe(ctx, &confinev1.DescribeRequest{})
	if err != nil {
		return nil, c.wrap("describe", err)
	}
	return d, nil
}

// Snapshot returns the counters and recorded calls of a watch that runs.
func (c *Client) Snapshot(ctx context.Context, watchID string) (*confinev1.SnapshotResponse, error) {
	s, err := c.rpc.Snapshot(ctx, &confinev1.SnapshotRequest{WatchId: watchID})
	if err != nil {
		return nil, c.wrap("snapshot", err)
	}
	return s, nil
}

// wrap names the monitor in an error, and says so when the reason is that the
// process has ended.
func (c *Client) wrap(what string, err error) error {
	if ended := c.ended(err); ended != nil {
		return ended
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Errorf("monitor %s: %s: %w", c.name, what, &rpcError{s})
	}
	return fmt.Errorf("monitor %s: %s: %w", c.name, what, err)
}

// rpcError prints a status as the sentence that the plugin wrote.
type rpcError struct{ status *status.Status }

func (e *rpcError) Error() string              { return e.status.Message() }
func (e *rpcError) GRPCStatus() *status.Status { return e.status }

// nameOf returns NAME of confine-monitor-NAME.
func nameOf(path string) string {
	return strings.TrimPrefix(filepath.Base(path), pluginPrefix)
}
