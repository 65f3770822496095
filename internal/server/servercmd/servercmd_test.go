package servercmd

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs the command until the test ends, and waits until it answers.
func start(t *testing.T, args ...string) (stop func() error, log *lines) {
	t.Helper()
	log = &lines{}
	cmd := New(log)
	cmd.SetArgs(args)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	for end := time.Now().Add(patience); !strings.Contains(log.String(), "msg=started"); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("ended: %v\n%s", err, log)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not started:\n%s", log)
		}
	}
	return stop, log
}

func nodes(t *testing.T, socket string) error {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = confinev1.NewOperatorServiceClient(conn).ListNodes(t.Context(), &confinev1.ListNodesRequest{})
	return err
}

func TestStartsAndStops(t *testing.T) {
	dir := t.TempDir()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "run", "s.sock")
	args := []string{"--data", data, "--listen", "127.0.0.1:0", "--socket", socket}
	stop, log := start(t, args...)
	if err := nodes(t, socket); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v; want 0600", info.Mode(), err)
	}
	first, err := os.ReadFile(filepath.Join(data, "ca", "ca.pem"))
	if err != nil {
		t.Error(err)
	}
	// A second server must not take the folder.
	other := New(&lines{})
	other.SetArgs([]string{"--data", data, "--listen", "", "--socket", filepath.Join(dir, "o.sock")})
	if err := other.Execute(); err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Errorf("two servers in one folder: %v", err)
	}
	// Nor the socket.
	other = New(&lines{})
	other.SetArgs([]string{"--data", filepath.Join(dir, "data2"), "--listen", "", "--socket", socket})
	if err := other.Execute(); err == nil || !strings.Contains(err.Error(), "another server listens there") {
		t.Errorf("two servers on one socket: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if !strings.Contains(log.String(), "msg=stopped") {
		t.Errorf("log:\n%s", log)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
	start(t, args...)
	if again, err := os.ReadFile(filepath.Join(data, "ca", "ca.pem")); err != nil || !bytes.Equal(first, again) {
		t.Error("the second start made another certificate authority")
	}
}

// TestStaleSocket starts where a killed server left its socket.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	start(t, "--data", filepath.Join(dir, "data"), "--listen", "", "--socket", socket)
	if err := nodes(t, socket); err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "server.yaml")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	read := func(args ...string) (settings, error) {
		cmd := New(&lines{})
		if err := cmd.Flags().Parse(args); err != nil {
			t.Fatal(err)
		}
		return readSettings(cmd.Flags())
	}
	config := file("data: /from/file\nlisten: 1.2.3.4:5\nsan: [a.example, b.example]\nagent-grace: 90s\n")
	t.Setenv("CONFINE_SERVER_LISTEN", "9.9.9.9:9")
	s, err := read("--config", config, "--data", "/from/flag")
	if err != nil {
		t.Fatal(err)
	}
	if s.Data != "/from/flag" || s.Listen != "9.9.9.9:9" || strings.Join(s.San, " ") != "a.example b.example" || s.AgentGrace != 90*time.Second {
		t.Errorf("settings %+v", s)
	}
	if s, err = read(); err != nil || s.Socket != "/run/confine/server.sock" || len(s.San) < 3 {
		t.Errorf("defaults %+v, %v", s, err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--config", file("dta: /x\n")}, `unknown setting "dta"`},
		{[]string{"--config", "/no/such/file"}, "/no/such/file"},
		{[]string{"--config", file("data: [")}, "read configuration"},
		{[]string{"--listen", "7443"}, "HOST:PORT"},
		{[]string{"--listen", "", "--socket", ""}, "nothing to listen on"},
		{[]string{"--agent-grace", "-1s"}, "negative"},
	} {
		if c.args[0] == "--listen" {
			t.Setenv("CONFINE_SERVER_LISTEN", c.args[1])
		}
		if _, err := read(c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want an error that says %q", c.args, err, c.says)
		}
	}
}
