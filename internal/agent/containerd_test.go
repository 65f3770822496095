package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

// namespace is the one that tests run in. It isn't the default on purpose, and
// of this process alone: containerds share the runtime's state and the control
// groups of a namespace.
var namespace = fmt.Sprintf("confine-test-%d", os.Getpid())

// removeNamespace removes what containerd keeps of a namespace for ever.
func removeNamespace() {
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + namespace)
	for _, g := range append(groups, "/sys/fs/cgroup/"+namespace, "/run/containerd/runc/"+namespace) {
		_ = os.Remove(g)
	}
}

// daemon is a private containerd.
type daemon struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	log    bytes.Buffer
}

// startContainerd starts a containerd with folders of its own and stops it
// with the test. It skips only where the host cannot run one.
func startContainerd(t *testing.T) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Skip("containerd is not installed")
	}
	// Short: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "confine-ctrd-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, socket: filepath.Join(dir, "c.sock")}
	t.Cleanup(func() { d.cleanup(t) })
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.socket)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("containerd", "--config", filepath.Join(d.dir, "config.toml"), "--log-level", "warn")
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := containerd.New(d.socket, containerd.WithTimeout(time.Second)); err == nil {
			_, err = c.Version(ctx)
			c.Close()
			if err == nil {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("containerd does not answer:\n%s", d.log.String())
}

// kill ends the daemon as a crash would; shims and containers stay.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	d.cmd = nil
}

func (d *daemon) cleanup(t *testing.T) {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(unix.SIGTERM)
		_ = d.cmd.Wait()
	}
	// Shims of a failed test.
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, e := range entries {
		b, err := os.ReadFile(e)
		if err == nil && bytes.Contains(b, []byte("containerd-shim")) && bytes.Contains(b, []byte(d.socket)) {
			var pid int
			if _, err := fmt.Sscanf(e, "/proc/%d/cmdline", &pid); err == nil {
				t.Errorf("shim %d was left behind", pid)
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], d.dir) {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
	if t.Failed() {
		t.Logf("containerd:\n%s", d.log.String())
	}
	_ = os.RemoveAll(d.dir)
}

// client returns a client and a context of the tests' namespace.
func (d *daemon) client(t *testing.T) (*containerd.Client, context.Context) {
	t.Helper()
	c, err := containerd.New(d.socket, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, namespaces.WithNamespace(t.Context(), namespace)
}

// contents lists what containerd holds beside images and their layers.
func (d *daemon) contents(t *testing.T) []string {
	t.Helper()
	c, ctx := d.client(t)
	var found []string
	containers, err := c.Containers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range containers {
		found = append(found, "container "+x.ID())
	}
	leases, err := c.LeasesService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		found = append(found, "lease "+l.ID)
	}
	out, err := exec.Command("ctr", "--address", d.socket, "-n", namespace, "tasks", "ls", "-q").Output()
	if err != nil {
		t.Fatal(err)
	}
	for task := range strings.FieldsSeq(string(out)) {
		found = append(found, "task "+task)
	}
	out, err = exec.Command("ctr", "--address", d.socket, "-n", namespace, "snapshots", "ls").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == "Active" {
			found = append(found, "snapshot "+f[0])
		}
	}
	// Groups of the runtime; those of a run carry its container's name.
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + namespace + "/confine-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		name := "cgroup " + filepath.Base(g)
		if !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// mustBeEmpty checks that a run left nothing.
func (d *daemon) mustBeEmpty(t *testing.T) {
	t.Helper()
	if left := d.contents(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
