package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// newRoot makes a root folder with programs and the libraries that they need.
func newRoot(t *testing.T, programs ...string) string {
	t.Helper()
	root := real(t, t.TempDir())
	for _, p := range programs {
		for _, file := range append(libraries(t, p), p) {
			copyFile(t, file, filepath.Join(root, file))
		}
	}
	return root
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// mountOverlay puts a writable layer on a folder, like a container's root.
func mountOverlay(t *testing.T, lower string) string {
	t.Helper()
	// The layers of an overlay may not lie on an overlay.
	dir := t.TempDir()
	if err := syscall.Mount("confine-test", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	for _, d := range []string{"upper", "work", "lower", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "-a", lower+"/.", filepath.Join(dir, "lower")).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	merged := filepath.Join(dir, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(merged, syscall.MNT_DETACH) })
	return merged
}

// Paths are those of the process's own root, also where the root is a stack of
// layers and where a file lies on a mount below it.
func TestRoots(t *testing.T) {
	load, lib := compile(t, "load.c"), compileLibrary(t)
	for _, overlay := range []bool{false, true} {
		t.Run(fmt.Sprintf("overlay=%v", overlay), func(t *testing.T) {
			root := newRoot(t, load)
			copyFile(t, lib, filepath.Join(root, "lib", "library.so"))
			if err := os.Mkdir(filepath.Join(root, "mnt"), 0o755); err != nil {
				t.Fatal(err)
			}
			if overlay {
				root = mountOverlay(t, root)
				// One from the upper layer, too.
				copyFile(t, lib, filepath.Join(root, "upper.so"))
			}
			mnt := filepath.Join(root, "mnt")
			if err := syscall.Mount("confine-test", mnt, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) })
			copyFile(t, lib, filepath.Join(mnt, "mounted.so"))
			want := []string{"/lib/library.so", "/mnt/mounted.so"}
			if overlay {
				want = append(want, "/upper.so")
			}
			for _, how := range []string{"dlopen", "mmap", "mprotect"} {
				argv := append([]string{"chroot", root, load, how}, want...)
				s := watchTree(t, argv...)
				if e := s.execs[len(s.execs)-1]; e.GetPath() != load || e.GetFilename() != load {
					t.Errorf("exec %v, want %s", e, load)
				}
				if s.calls(load) == nil {
					t.Errorf("no calls of %s in %v", load, s.snapshot.GetRecorded())
				}
				pid := s.execs[len(s.execs)-1].GetPid()
				inRoot := mappedBy(s.mappings, pid)
				for _, file := range slices.Concat(want, libraries(t, load)) {
					if !slices.Contains(inRoot, file) {
						t.Errorf("%s: %s isn't among the mappings %q", how, file, inRoot)
					}
				}
			}
		})
	}
}

func mappedBy(all []*confinev1.Mapping, pid int32) []string {
	var out []string
	for _, m := range all {
		if m.GetPid() == pid {
			out = append(out, m.GetPath())
		}
	}
	return out
}

// A file outside of the process's root is said to be so.
func TestOutsideOfRoot(t *testing.T) {
	load := compile(t, "load.c", "-static")
	lib := compileLibrary(t)
	root := real(t, t.TempDir())
	copyFile(t, load, filepath.Join(root, "load"))
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(root, "proc"), syscall.MNT_DETACH) })
	s := watchTree(t, "/bin/sh", "-c", `exec 4<"$1"; exec chroot "$2" /load mmap /proc/self/fd/4`, "sh", lib, root)
	if s.mapped()["(unreachable)"+lib] != 1 {
		t.Errorf("mappings %v, want (unreachable)%s", s.mapped(), lib)
	}
}
