package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// commandTime bounds one command line.
	commandTime = 4 * time.Minute
	// cleanTime bounds how long traces of a run may stay.
	cleanTime = 60 * time.Second
)

// needMachine skips a test where the host cannot run it at all.
func needMachine(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers and eBPF need root")
	}
	for _, tool := range []string{"containerd", "runc", "ctr"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed; scripts/install-test-deps installs it", tool)
		}
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("the kernel has no BTF, which the eBPF monitor needs")
	}
}

// bin returns the path of a built program.
func bin(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: run 'make build' first", path)
	}
	return path
}

// world is a machine: containerd, server and one agent, named n1.
type world struct {
	dir        string
	containerd *daemon
	server     *process
	agent      *process
	// address is where the server listens for TLS.
	address string
	// config is the file of the agent's configuration, "" for none.
	config string
}

// newWorld starts everything with folders of its own, and stops it with the
// test, which fails when anything was left behind.
func newWorld(t *testing.T, imageNames ...string) *world {
	t.Helper()
	w := newMachine(t, imageNames...)
	w.startServer(t)
	token, _, code := w.ctl(t, "token", "create", "--role", "agent")
	if code != 0 {
		t.Fatal("no token")
	}
	w.startAgent(t, strings.TrimSpace(token))
	return w
}

// newMachine starts containerd alone.
func newMachine(t *testing.T, imageNames ...string) *world {
	t.Helper()
	needMachine(t)
	// Short: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "confine-t-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove folder of the test: %v", err)
		}
	})
	w.containerd = newDaemon(t, dir)
	w.containerd.load(t, imageNames...)
	return w
}

func (w *world) startServer(t *testing.T) {
	t.Helper()
	address := "127.0.0.1:0"
	if w.address != "" {
		address = w.address
	}
	w.server = start(t, w.dir, "confine-server", nil, bin(t, "confine-server"),
		"--data", filepath.Join(w.dir, "server"), "--listen", address,
		"--socket", filepath.Join(w.dir, "server.sock"), "--agent-grace", "5s")
	until(t, 20*time.Second, "the server listens", func() bool {
		if w.server.ended() {
			t.Fatalf("confine-server ended: %v", w.server.err)
		}
		m := regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(w.server.tail())
		if m == nil {
			return false
		}
		w.address = m[1]
		_, _, code := w.ctl(t, "nodes")
		return code == 0
	})
}

// startAgent starts node n1; token is "" once it has joined.
func (w *world) startAgent(t *testing.T, token string) {
	t.Helper()
	var env []string
	if token != "" {
		env = []string{"CONFINE_AGENT_TOKEN=" + token}
	}
	args := []string{
		bin(t, "confine-agent"), "--node", "n1", "--server", w.address, "--data", filepath.Join(w.dir, "agent"),
		"--containerd", w.containerd.socket, "--namespace", namespace, "--plugins", bin(t, "plugins"),
	}
	if w.config != "" {
		args = append(args, "--config", w.config)
	}
	w.agent = start(t, w.dir, "confine-agent", env, args...)
	until(t, 20*time.Second, "node n1 is connected", func() bool {
		if w.agent.ended() {
			t.Fatalf("confine-agent ended: %v", w.agent.err)
		}
		return w.connected(t)
	})
}

func (w *world) connected(t *testing.T) bool {
	out, _, code := w.ctl(t, "nodes", "-o", "json")
	if code != 0 {
		return false
	}
	var list confinev1.ListNodesResponse
	if err := protojson.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list.GetNodes() {
		if n.GetName() == "n1" && n.GetConnected() {
			return true
		}
	}
	return false
}

// command prepares confinectl.
func (w *world) command(ctx context.Context, t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	cmd = exec.CommandContext(ctx, bin(t, "confinectl"), args...)
	cmd.Env = append(os.Environ(), "CONFINE_SERVER=unix://"+filepath.Join(w.dir, "server.sock"),
		"HOME="+w.dir, "XDG_CONFIG_HOME="+filepath.Join(w.dir, "config"), "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"))
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd, stdout, stderr
}

// ctl runs confinectl to its end.
func (w *world) ctl(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	cmd, out, errs := w.command(ctx, t, args...)
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("confinectl %s does not end; it printed:\n%s%s", strings.Join(args, " "), out, errs)
	}
	return out.String(), errs.String(), exitCode(t, err)
}

// background is a confinectl that runs beside the test.
type background struct {
	cmd            *exec.Cmd
	stdout, stderr *bytes.Buffer
	done           chan struct{}
	err            error
}

// begin starts confinectl and returns at once.
func (w *world) begin(t *testing.T, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTime)
	b := &background{done: make(chan struct{})}
	b.cmd, b.stdout, b.stderr = w.command(ctx, t, args...)
	if err := b.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer cancel()
		b.err = b.cmd.Wait()
		close(b.done)
	}()
	t.Cleanup(func() { cancel(); <-b.done })
	return b
}

// end waits for the command and returns what it printed on standard error.
func (b *background) end(t *testing.T) (stderr string, code int) {
	t.Helper()
	<-b.done
	return b.stderr.String(), exitCode(t, b.err)
}

func (b *background) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	t.Fatalf("confinectl: %v", err)
	return -1
}

// profile runs 'confinectl profile -o json' and returns the result, nil when
// there is none.
func (w *world) profile(t *testing.T, args ...string) (result *confinev1.Result, stderr string, code int) {
	t.Helper()
	out, stderr, code := w.ctl(t, append([]string{"profile", "-o", "json"}, args...)...)
	if !json.Valid([]byte(out)) {
		if out != "" {
			t.Errorf("standard output is no JSON document:\n%s", out)
		}
		return nil, stderr, code
	}
	result = new(confinev1.Result)
	if err := protojson.Unmarshal([]byte(out), result); err != nil {
		t.Fatalf("read result: %v", err)
	}
	return result, stderr, code
}

// mustBeClean checks that nothing of any run is left, in containerd and in the
// agent's folder. A run's end may be carried out after the answer to the user.
func (w *world) mustBeClean(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(cleanTime); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		left, err = w.containerd.contents(t)
		if err != nil {
			t.Fatalf("ask containerd what is left: %v", err)
		}
		left = append(left, filesBelow(filepath.Join(w.dir, "agent", "state", "runs"))...)
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("left behind: %s", strings.Join(left, ", "))
}
