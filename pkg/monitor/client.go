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
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// answerTime bounds every answer of a monitor, its handshake included, when
	// its host says nothing else.
	answerTime = 20 * time.Second
	// closeTime is how long a monitor may take to end when it is told to.
	closeTime = 3 * time.Second
	// messageSize bounds a message of a monitor, in bytes.
	messageSize = 16 << 20
)

// ErrEnded means that the plugin's process ended although nobody asked it to.
var ErrEnded = errors.New("ended unexpectedly")

// HostConfig says which plugin to start and how.
type HostConfig struct {
	// Path of the executable.
	Path string
	// SHA256 is the hex digest that the executable must have; nothing else is
	// started. Any is taken when it is empty.
	SHA256 string
	// Capabilities of Linux, by name, that the plugin gets of those that it
	// states to need; all of these when it is nil. It never gets others.
	Capabilities []string
	// Limits of what it may use.
	Limits Limits
	// AnswerTime bounds every answer; a plugin that takes longer hangs, and is
	// killed. 20 seconds when it is 0.
	AnswerTime time.Duration
	// Options of the backend (see Option), by name.
	Options map[string]string
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
	answer time.Duration
	pid    int

	// Version of the contract that both sides speak; Stated is what the plugin
	// needs, and Given what it got of it.
	version       int
	stated, given []string

	done    chan struct{} // closed when the process has ended
	stop    chan struct{} // closed by Close
	once    sync.Once
	mu      sync.Mutex
	closing bool
	hung    string // what it didn't answer, when it was ended for that
}

// Start starts a plugin and returns when it answers. The process ends with
// Close, and with this process.
func Start(ctx context.Context, cfg HostConfig) (*Client, error) {
	name := nameOf(cfg.Path)
	c, err := start(ctx, name, cfg)
	if err != nil {
		return nil, fmt.Errorf("start monitor %s: %w", name, err)
	}
	return c, nil
}

func start(ctx context.Context, name string, cfg HostConfig) (*Client, error) {
	if cfg.AnswerTime <= 0 {
		cfg.AnswerTime = answerTime
	}
	exe, err := openExecutable(cfg.Path, cfg.SHA256)
	if err != nil {
		return nil, err
	}
	defer exe.close()
	stated, err := needsOf(ctx, exe, min(needsTime, cfg.AnswerTime))
	if err != nil {
		return nil, err
	}
	given := granted(stated.Capabilities, cfg.Capabilities)
	keep, err := capabilityNumbers(given)
	if err != nil {
		return nil, err
	}
	if given, err = permitted(given, keep); err != nil {
		return nil, err
	}
	dir, err := newFolder()
	if err != nil {
		return nil, err
	}
	c := &Client{
		name: name, sha256: exe.sha256, dir: dir, stated: stated.Capabilities, given: given, answer: cfg.AnswerTime,
		done: make(chan struct{}), stop: make(chan struct{}),
	}
	var proc *process
	c.plugin = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake(),
		VersionedPlugins: versions(nil),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			cmd.Env = append(cmd.Env, environment(dir.path, cfg)...)
			cmd.SysProcAttr = attributes()
			var err error
			proc, err = newProcess(cmd, exe, cfg.Limits)
			return proc, err
		},
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir.path},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     cfg.AnswerTime,
		GRPCDialOptions:  []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageSize))},
		Logger:           newLogger(cfg.Logger),
		Stderr:           io.Discard,
	})
	if err := c.start(ctx, keep, func() int { return pidOf(proc) }); err != nil {
		c.Close()
		return nil, explainStart(err, cfg.AnswerTime)
	}
	if !proc.limited() && cfg.Logger != nil {
		cfg.Logger.Warn("no cgroup can be made for the monitor: only its open files and private memory are limited")
	}
	return c, nil
}

// granted returns those of the stated capabilities that are allowed, nil
// allowing all.
func granted(stated, allowed []string) []string {
	if allowed == nil {
		return stated
	}
	var out []string
	for _, s := range stated {
		for _, a := range allowed {
			if strings.EqualFold(strings.TrimPrefix(strings.ToUpper(a), "CAP_"), strings.TrimPrefix(strings.ToUpper(s), "CAP_")) {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

// environment is all that a plugin gets of it, besides what go-plugin needs.
func environment(dir string, cfg HostConfig) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir}
	for name, value := range cfg.Options {
		env = append(env, optionVariable(name)+"="+value)
	}
	return append(env, cfg.Env...)
}

func pidOf(p *process) int {
	if p == nil {
		return 0
	}
	return p.pid
}

// start launches the process from a thread that gives up its privileges for
// it, and lives as long as the process does: the kernel sends the parent-death
// signal when the thread that forked ends, not when its process does.
func (c *Client) start(ctx context.Context, keep []int, pid func() int) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := dropPrivileges(keep)
		if err == nil {
			c.rpc, err = c.dispense()
		}
		c.pid = pid()
		if c.pid == 0 {
			close(c.done)
			started <- err
			return
		}
		c.version = c.plugin.NegotiatedVersion()
		started <- err
		c.reap()
	}()
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		<-started // bounded by AnswerTime
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

// Version of the contract that both sides speak.
func (c *Client) Version() int { return c.version }

// Capabilities of Linux that the plugin states to need, and those of them that
// it runs with.
func (c *Client) Capabilities() (stated, given []string) { return c.stated, c.given }

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
	if c.hung != "" {
		return fmt.Errorf("monitor %s %w: it hung (no answer to %s within %v) and was killed", c.name, ErrEnded, c.hung, c.answer)
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
		// go-plugin asks it to end, and waits for an answer without limit.
		kill := time.AfterFunc(closeTime, c.kill)
		c.plugin.Kill()
		kill.Stop()
		c.dir.remove()
	})
	<-c.done
}

// kill ends the process, and what it started, at once.
func (c *Client) kill() {
	if c.pid > 0 {
		_ = unix.Kill(-c.pid, unix.SIGKILL)
	}
}

// hang ends a process that doesn't answer.
func (c *Client) hang(what string) {
	c.mu.Lock()
	if c.hung == "" {
		c.hung = what
	}
	c.mu.Unlock()
	c.kill()
}

// ask calls a monitor, which is ended when it doesn't answer in time.
func (c *Client) ask(ctx context.Context, what string, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, c.answer)
	defer cancel()
	err := call(limited)
	if err != nil && over(limited) && !over(ctx) {
		c.hang(what)
		<-c.done
	}
	if err != nil {
		return c.wrap(what, err)
	}
	return nil
}

// over reports whether a context has ended, or is about to: calls look at its
// deadline by themselves, and may return a moment before it knows.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// Describe returns what the monitor can see on this host; its error says why
// it can't work.
func (c *Client) Describe(ctx context.Context) (d *confinev1.DescribeResponse, err error) {
	err = c.ask(ctx, "describe", func(ctx context.Context) error {
		d, err = c.rpc.Describe(ctx, &confinev1.DescribeRequest{})
		return err
	})
	return d, err
}

// Snapshot returns the counters and recorded calls of a watch that runs.
func (c *Client) Snapshot(ctx context.Context, watchID string) (s *confinev1.SnapshotResponse, err error) {
	err = c.ask(ctx, "snapshot", func(ctx context.Context) error {
		s, err = c.rpc.Snapshot(ctx, &confinev1.SnapshotRequest{WatchId: watchID})
		return err
	})
	return s, err
}

// finalSnapshot is Snapshot for a watch that replays a trace, which answers
// when it has come to the trace's end.
func (c *Client) finalSnapshot(ctx context.Context, watchID string) (*confinev1.SnapshotResponse, error) {
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
