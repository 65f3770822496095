package agentcmd

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// patience bounds every wait of a test.
const patience = time.Minute

// server welcomes agents.
type server struct {
	confinev1.UnimplementedAgentServiceServer
	hellos chan *confinev1.Hello
}

func (s *server) Connect(stream grpc.BidiStreamingServer[confinev1.ConnectRequest, confinev1.ConnectResponse]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.Send(&confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Welcome{Welcome: &confinev1.Welcome{}}}); err != nil {
		return err
	}
	s.hellos <- m.GetHello()
	<-stream.Context().Done()
	return nil
}

// serve listens on a Unix socket in a folder.
func serve(t *testing.T, dir string) (address string, hellos chan *confinev1.Hello) {
	t.Helper()
	path := filepath.Join(dir, "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{hellos: make(chan *confinev1.Hello, 4)}
	g := grpc.NewServer()
	confinev1.RegisterAgentServiceServer(g, s)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	return "unix://" + path, s.hellos
}

// systemd stands in for the service manager and returns what it was told.
func systemd(t *testing.T, dir string) <-chan string {
	t.Helper()
	path := filepath.Join(dir, "notify.sock")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	told := make(chan string, 16)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				close(told)
				return
			}
			told <- string(buf[:n])
		}
	}()
	return told
}

// shortDir is for sockets, whose path has at most 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agentcmd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// log is a Writer that may be read meanwhile.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// TestServiceLife starts the agent as systemd does, without a containerd, and
// stops it.
func TestServiceLife(t *testing.T) {
	dir := shortDir(t)
	address, hellos := serve(t, dir)
	told := systemd(t, dir)
	t.Setenv("CONFINE_AGENT_NODE", "from-environment")
	var out log
	cmd := New(&out)
	cmd.SetArgs([]string{"--server", address, "--data", filepath.Join(dir, "data"), "--plugins", dir, "--containerd", filepath.Join(dir, "none.sock"), "--log-format", "json"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	if got := next(t, told); got != "READY=1" {
		t.Errorf("systemd was told %q first", got)
	}
	if h := next(t, hellos); h.GetNode().GetName() != "from-environment" || h.GetNode().GetVersion() == "" || h.GetNode().GetKernel() == "" || h.GetSession() == "" {
		t.Errorf("hello %v", h)
	}
	stop()
	if err := next(t, done); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if got := next(t, told); got != "STOPPING=1" {
		t.Errorf("systemd was told %q at the end", got)
	}
	for _, want := range []string{`"msg":"started"`, `"msg":"stopped"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, out.String())
		}
	}
}

func TestMistakesInSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte("server: unix:///x\nnodes: typo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"--server HOST:PORT":         {},
		`unknown setting "nodes"`:    {"--config", file},
		"read configuration":         {"--config", filepath.Join(dir, "none.yaml")},
		"want text or json":          {"--server", "unix:///x", "--data", dir, "--log-format", "xml"},
		"want debug, info":           {"--server", "unix:///x", "--data", dir, "--log-level", "loud"},
		"has not joined host:1":      {"--server", "host:1", "--data", dir, "--node", "n1"},
		"unknown flag: --no-such":    {"--no-such"},
		`unknown command "surplus"`:  {"surplus"},
		"--token is missing":         {"join", "--server", "host:1"},
		"--server HOST:PORT is miss": {"join", "--token", "x"},
	} {
		cmd := New(&log{})
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", args, err, want)
		}
	}
}

// TestStrongestSettingWins gives each setting in several places.
func TestStrongestSettingWins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("server: file:1\nnode: file\nnamespace: file\nlog-level: debug\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONFINE_AGENT_CONFIG", file)
	t.Setenv("CONFINE_AGENT_NODE", "environment")
	t.Setenv("CONFINE_AGENT_REGISTRY_HOSTS", "/environment")
	t.Setenv("CONFINE_AGENT_NAMESPACE", "environment")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse([]string{"--namespace", "flag"}); err != nil {
		t.Fatal(err)
	}
	got, err := readSettings(flags)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Server: "file:1", Node: "environment", Namespace: "flag", RegistryHosts: "/environment", LogLevel: "debug",
		Data: "/var/lib/confine-agent", Containerd: "/run/containerd/containerd.sock", Plugins: "/usr/lib/confine/plugins",
		Runtime: "runc", LogFormat: "text",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
