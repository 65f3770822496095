package rootfs_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/rootfs/rootfstest"
)

func newDir(t *testing.T, path string) *rootfs.Dir {
	t.Helper()
	d, err := rootfs.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDir(t *testing.T) {
	rootfstest.Run(t, func(t *testing.T, dir string) rootfs.Root { return newDir(t, dir) })
}

// TestDirLinkedRoot runs the suite over a root whose own path has links.
func TestDirLinkedRoot(t *testing.T) {
	rootfstest.Run(t, func(t *testing.T, dir string) rootfs.Root {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		return newDir(t, link)
	})
}

// TestDirProcessRoot runs the suite over /proc/PID/root of a process with a
// root and mount namespace of its own, as a container's.
func TestDirProcessRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	rootfstest.Run(t, func(t *testing.T, dir string) rootfs.Root {
		return chrooted(t, dir)
	})
}

// chrooted starts a process below dir in a mount namespace of its own and
// returns the Root that /proc shows of it.
func chrooted(t *testing.T, dir string) rootfs.Root {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("install busybox-static: %v", err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c",
		`mount --bind "$0" "$0" && cd "$0" && exec chroot . /busybox cat`, dir)
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the process did not start: %v", err)
	}
	return newDir(t, "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/root")
}

func TestDirHostRoot(t *testing.T) {
	d := newDir(t, "/")
	self, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := d.Lookup(t.Context(), self); err != nil || e.Path != self || e.Kind != rootfs.KindFile {
		t.Errorf("Lookup(%q) = %+v, %v", self, e, err)
	}
	// Nothing that the kernel makes up, and no device, is ever opened.
	for _, path := range []string{"/proc/kcore", "/proc/self/mem", "/proc/kmsg", "/dev/null", "/dev/zero", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if e, err := d.Lookup(t.Context(), path); err != nil || e.Kind != rootfs.KindOther {
			t.Errorf("Lookup(%q) = %+v, %v; want KindOther", path, e, err)
		}
		if _, err := d.Digest(t.Context(), path); !errors.Is(err, rootfs.ErrNotRegular) {
			t.Errorf("Digest(%q): %v, want ErrNotRegular", path, err)
		}
	}
	// A magic link is its text, resolved in the root: this pipe has no name.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	magic := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(r.Fd()))
	if e, err := d.Lookup(t.Context(), magic); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lookup of a magic link = %+v, %v; want fs.ErrNotExist", e, err)
	}
}

func TestNewDirBad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "/x", "/no/such/folder", ""} {
		if d, err := rootfs.NewDir(path); err == nil || !strings.HasPrefix(err.Error(), "open root: ") {
			t.Errorf("NewDir(%q) = %v, %v; want an error", path, d, err)
		}
	}
}

func TestDigestFollowsContent(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	file := filepath.Join(dir, "f")
	seen := map[string]bool{}
	for _, content := range []string{"one", "two", "six"} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		digest, err := d.Digest(t.Context(), "/f")
		if err != nil {
			t.Fatal(err)
		}
		if seen[digest] {
			t.Errorf("the digest of %q is that of an earlier content", content)
		}
		seen[digest] = true
	}
}

// TestLookupKnown asks for a digest before the file is read, afterwards, and when
// it has changed.
func TestLookupKnown(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	known := func() string {
		e, digest, err := d.LookupKnown(t.Context(), "/f")
		if want := (rootfs.Entry{Path: "/f", Kind: rootfs.KindFile, Mode: 0o644, Size: 3}); err != nil || e != want {
			t.Errorf("%+v, %v, want %+v", e, err, want)
		}
		return digest
	}
	if got := known(); got != "" {
		t.Errorf("%q is known of a file that wasn't read", got)
	}
	time.Sleep(1100 * time.Millisecond) // what changed just now isn't kept
	want, err := d.Digest(t.Context(), "/f")
	if err != nil {
		t.Fatal(err)
	}
	if got := known(); got != want {
		t.Errorf("%q is known, want %q", got, want)
	}
	if err := os.WriteFile(file, []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := known(); got != "" {
		t.Errorf("%q is known of a file that changed", got)
	}
	if _, got, err := d.LookupKnown(t.Context(), "/none"); !errors.Is(err, fs.ErrNotExist) || got != "" {
		t.Errorf("%q, %v for a file that isn't there", got, err)
	}
}

func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sparse"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "sparse"), 1<<40); err != nil {
		t.Skipf("file system has no sparse files: %v", err)
	}
	if _, err := newDir(t, dir).Digest(t.Context(), "/sparse"); !errors.Is(err, unix.EFBIG) {
		t.Errorf("Digest of 1 TiB: %v, want EFBIG", err)
	}
}

// TestRacingRename swaps a folder for a link to the outside, and moves a
// folder that is being walked out of the root, while paths below them are
// looked up.
func TestRacingRename(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for _, p := range []string{root + "/a/b", root + "/m/b", top + "/out"} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const inside, outside = "in", "outside"
	for file, content := range map[string]string{
		root + "/f": inside, root + "/a/f": inside, root + "/m/f": inside, top + "/f": outside, top + "/out/f": outside,
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../out", root+"/l"); err != nil {
		t.Fatal(err)
	}
	d := newDir(t, root)
	var stop atomic.Bool
	swapped := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			_ = unix.Renameat2(unix.AT_FDCWD, root+"/a", unix.AT_FDCWD, root+"/l", unix.RENAME_EXCHANGE)
			_ = os.Rename(root+"/m/b", top+"/out/b")
			_ = os.Rename(top+"/out/b", root+"/m/b")
		}
		swapped <- n
	}()
	found := 0
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		for _, path := range []string{"/a/f", "/m/b/../f", "/m/b/../../f", "/a/b/../../f"} {
			f, err := d.Open(t.Context(), path)
			if err != nil {
				continue
			}
			found++
			if f.Size() != int64(len(inside)) {
				t.Errorf("Open(%q) reached a file outside the root", path)
			}
			f.Close()
		}
	}
	stop.Store(true)
	if n := <-swapped; n == 0 || found == 0 {
		t.Fatalf("the race did not happen: %d renames, %d files found", n, found)
	}
}

// TestNoDescriptorsLeft counts open descriptors around many failing walks.
func TestNoDescriptorsLeft(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	d := newDir(t, dir)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := count()
	for range 200 {
		_, _ = d.Lookup(t.Context(), "/loop")
		_, _ = d.Open(t.Context(), "/")
		_, _ = d.Lookup(t.Context(), "/./../.")
		_, _ = d.ReadDir(t.Context(), "/")
	}
	if after := count(); after > before+5 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestReadDirChanged: names that were kept don't outlive a change of their folder.
func TestReadDirChanged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := rootfs.NewDir(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	time.Sleep(2100 * time.Millisecond) // what was changed just now isn't kept
	name := "/" + filepath.Base(dir)
	for _, want := range []string{"a", "a", "a b", "b"} {
		switch want {
		case "a b":
			err = os.WriteFile(dir+"/b", nil, 0o644)
		case "b":
			err = os.Remove(dir + "/a")
		}
		if err != nil {
			t.Fatal(err)
		}
		names, err := d.ReadDir(t.Context(), name)
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("ReadDir = %q, %v; want %q", got, err, want)
		}
	}
}

func FuzzLookup(f *testing.F) {
	for _, s := range []string{"/", "..", "/a/../b", "/l/l/l/..", "/d/f/", "//./d/..//l", "\x00", "/d/up/up/f"} {
		f.Add(s, s)
	}
	top := f.TempDir()
	f.Fuzz(func(t *testing.T, path, target string) {
		root, err := os.MkdirTemp(top, "root")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		if err := os.MkdirAll(root+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Symlink("..", root+"/d/up")
		_ = os.Symlink(target, root+"/l")
		_ = os.WriteFile(root+"/d/f", nil, 0o644)
		d, err := rootfs.NewDir(root)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		e, err := d.Lookup(t.Context(), path)
		if err != nil {
			return
		}
		// What was found is inside, and its path is canonical.
		again, err := d.Lookup(t.Context(), e.Path)
		if err != nil || again != e {
			t.Errorf("Lookup(%q) = %+v, but Lookup of that = %+v, %v", path, e, again, err)
		}
		if real, err := filepath.EvalSymlinks(root + e.Path); err != nil || real != filepath.Clean(root+e.Path) {
			t.Errorf("Lookup(%q) = %q, really %q, %v", path, e.Path, real, err)
		}
	})
}
