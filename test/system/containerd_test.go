package system

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/test/images"
)

// namespace is containerd's namespace of the tests, not the default on purpose.
const namespace = "confine-system"

// daemon is a containerd with folders of its own.
type daemon struct {
	dir, socket string
	process     *process
}

func newDaemon(t *testing.T, dir string) *daemon {
	t.Helper()
	d := &daemon{dir: dir, socket: filepath.Join(dir, "c.sock")}
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
	t.Cleanup(func() { d.clean(t) })
	d.start(t)
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.process = start(t, d.dir, "containerd", nil, "containerd", "--config", filepath.Join(d.dir, "config.toml"), "--log-level", "warn")
	until(t, 20*time.Second, "containerd answers", func() bool {
		c, err := containerd.New(d.socket, containerd.WithTimeout(time.Second))
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = c.Version(t.Context())
		return err == nil
	})
}

// clean removes what is left when the daemon has ended. A shim that is left is
// an error of the test.
func (d *daemon) clean(t *testing.T) {
	for _, pid := range d.shims() {
		t.Errorf("a shim was left behind: process %d", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], d.dir+"/") {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}

// shims returns the processes that hold containers of this daemon.
func (d *daemon) shims() []int {
	var found []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		b, err := os.ReadFile(file)
		argv := strings.Split(string(b), "\x00")
		if err != nil || !strings.Contains(argv[0], "containerd-shim") || !slices.Contains(argv, d.socket) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

func (d *daemon) client(t *testing.T) (*containerd.Client, context.Context) {
	t.Helper()
	c, err := containerd.New(d.socket, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, namespaces.WithNamespace(context.WithoutCancel(t.Context()), namespace)
}

// load makes images and imports them.
func (d *daemon) load(t *testing.T, names ...string) {
	t.Helper()
	c, ctx := d.client(t)
	for _, name := range names {
		image, err := images.Build(t.Context(), name, images.CacheDir(), t.Output())
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(image.Path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Import(ctx, f)
		f.Close()
		if err != nil {
			t.Fatalf("import %s: %v", image.Ref, err)
		}
	}
}

// contents lists what containerd holds beside images and their layers.
func (d *daemon) contents(t *testing.T) ([]string, error) {
	c, err := containerd.New(d.socket, containerd.WithDefaultNamespace(namespace), containerd.WithTimeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx := namespaces.WithNamespace(context.WithoutCancel(t.Context()), namespace)
	var found []string
	containers, err := c.Containers(ctx)
	if err != nil {
		return nil, err
	}
	for _, x := range containers {
		found = append(found, "container "+x.ID())
	}
	leases, err := c.LeasesService().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		found = append(found, "lease "+l.ID)
	}
	err = c.SnapshotService("").Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if s.Kind != snapshots.KindCommitted {
			found = append(found, "snapshot "+s.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, pid := range d.shims() {
		found = append(found, fmt.Sprintf("shim %d", pid))
	}
	return found, nil
}

// ctr runs containerd's own command line.
func (d *daemon) ctr(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("ctr", append([]string{"--address", d.socket, "--namespace", namespace}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// filesBelow lists regular files, FIFOs and sockets below a folder that may
// be missing.
func filesBelow(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}
