// Package rootfstest is the suite that every rootfs.Root has to pass.
package rootfstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/rootfs"
)

// secret is the content of the files outside the root; no test may see it.
const secret = "outside the root"

// Run runs the suite. open returns a Root over a folder of this machine that
// the suite has filled; it ends with the test that it is given.
func Run(t *testing.T, open func(t *testing.T, dir string) rootfs.Root) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, f fixture)
	}{
		{"Lookup", testLookup},
		{"Missing", testMissing},
		{"Impossible", testImpossible},
		{"Content", testContent},
		{"NotRegular", testNotRegular},
		{"ReadDir", testReadDir},
		{"Escape", testEscape},
		{"Concurrent", testConcurrent},
		{"Cancelled", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fixture{outside: t.TempDir()}
			f.dir = filepath.Join(f.outside, "root")
			populate(t, f.dir)
			f.root = open(t, f.dir)
			c.test(t, f)
		})
	}
}

type fixture struct {
	root    rootfs.Root
	dir     string // the root's folder
	outside string // the folder above it
}

// populate builds the root that the tests look into.
func populate(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"usr/bin", "usr/lib/a", "etc", "empty"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for path, content := range map[string]string{
		"../secret": secret, "secret.in": "inside",
		"usr/bin/prog": "\x7fELF program", "usr/lib/libc.so.6": "a library",
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "usr/lib/a/zero": "",
	} {
		must(t, os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644))
	}
	must(t, os.Chmod(filepath.Join(dir, "usr/bin/prog"), 0o755))
	for link, target := range map[string]string{
		"bin": "usr/bin", "lib": "/usr/lib", "abs": "/etc/passwd",
		"chain1": "chain2", "chain2": "lib/../bin/prog",
		"self": "self", "loop1": "/loop2", "loop2": "loop1", "looped": "loop1/x",
		"up": "../../../../secret", "up-abs": "/../../secret",
		"up-etc": "../../../etc/passwd", "usr/lib/dots": "../../..",
		"dangling": "/nowhere/at/all", "tolong": strings.Repeat("a", 300),
		"dirlink": "usr/", "filelink-slash": "etc/passwd/", "here": ".", "usr/lib/a/top": "/",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	must(t, os.Symlink("fifo", filepath.Join(dir, "fifolink")))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testLookup(t *testing.T, f fixture) {
	const file, dir, other = rootfs.KindFile, rootfs.KindDir, rootfs.KindOther
	for _, c := range []struct {
		path, want string
		kind       rootfs.Kind
	}{
		{"/", "/", dir}, {"/.", "/", dir}, {"//", "/", dir}, {"/..", "/", dir},
		{"/usr/bin/prog", "/usr/bin/prog", file},
		{"usr/bin/prog", "/usr/bin/prog", file},
		{"//usr///bin/./prog", "/usr/bin/prog", file},
		{"/bin/prog", "/usr/bin/prog", file},
		{"/lib/libc.so.6", "/usr/lib/libc.so.6", file},
		{"/chain1", "/usr/bin/prog", file},
		{"/abs", "/etc/passwd", file},
		{"/bin/", "/usr/bin", dir}, {"/bin", "/usr/bin", dir}, {"/dirlink", "/usr", dir},
		{"/bin/..", "/usr", dir}, {"/bin/../lib", "/usr/lib", dir},
		{"/usr/lib/dots", "/", dir}, {"/up-etc", "/etc/passwd", file},
		{"/here/here/usr/lib/a/top/here/bin/prog", "/usr/bin/prog", file},
		{"/fifo", "/fifo", other}, {"/fifolink", "/fifo", other},
	} {
		e, err := f.root.Lookup(t.Context(), c.path)
		if err != nil || e.Path != c.want || e.Kind != c.kind {
			t.Errorf("Lookup(%q) = %+v, %v; want path %q, kind %d", c.path, e, err, c.want, c.kind)
		}
	}
	e, err := f.root.Lookup(t.Context(), "/bin/prog")
	if err != nil || e.Mode != 0o755 || e.Size != 12 {
		t.Errorf("Lookup(/bin/prog) = %+v, %v; want mode 0755, size 12", e, err)
	}
}

// each calls all methods on a path and gives the error of each to check.
func each(t *testing.T, root rootfs.Root, path string, check func(method string, err error)) {
	t.Helper()
	_, err := root.Lookup(t.Context(), path)
	check("Lookup", err)
	file, err := root.Open(t.Context(), path)
	if err == nil {
		file.Close()
	}
	check("Open", err)
	_, err = root.Digest(t.Context(), path)
	check("Digest", err)
	_, err = root.ReadDir(t.Context(), path)
	check("ReadDir", err)
}

func testMissing(t *testing.T, f fixture) {
	for _, path := range []string{"", "/no", "/usr/no/file", "/dangling", "/up", "/up-abs", "/usr/lib/a/top/no"} {
		each(t, f.root, path, func(method string, err error) {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%q): %v, want fs.ErrNotExist", method, path, err)
			}
		})
	}
}

func testImpossible(t *testing.T, f fixture) {
	for name, path := range map[string]string{
		"link to itself": "/self", "loop": "/loop1", "loop in the middle": "/looped",
		"through a file": "/etc/passwd/x", "file with a slash": "/etc/passwd/",
		"file and dots": "/etc/passwd/..", "link through a file": "/filelink-slash",
		"through a FIFO": "/fifo/x",
		"long name":      "/" + strings.Repeat("n", 256), "link to a long name": "/tolong",
		"long path": strings.Repeat("/usr", 2000), "endless": strings.Repeat("/", 1<<16),
		"NUL": "/etc/pass\x00wd",
	} {
		each(t, f.root, path, func(method string, err error) {
			if err == nil {
				t.Errorf("%s of a %s: no error", method, name)
			}
		})
	}
}

func testContent(t *testing.T, f fixture) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 700_000)
	must(t, os.WriteFile(filepath.Join(f.dir, "big"), big, 0o600))
	for path, want := range map[string][]byte{
		"/chain1": []byte("\x7fELF program"), "/usr/lib/a/zero": {}, "/big": big,
	} {
		file, err := f.root.Open(t.Context(), path)
		if err != nil {
			t.Errorf("Open(%q): %v", path, err)
			continue
		}
		if file.Size() != int64(len(want)) {
			t.Errorf("%q: Size %d, want %d", path, file.Size(), len(want))
		}
		got, err := io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: read %d bytes, %v; want %d equal ones", path, len(got), err, len(want))
		}
		if n, err := file.ReadAt(make([]byte, 4), file.Size()); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%q: ReadAt at the end = %d, %v; want 0, EOF", path, n, err)
		}
		must(t, file.Close())
		sum := sha256.Sum256(want)
		for range 2 { // the second may come from a cache
			digest, err := f.root.Digest(t.Context(), path)
			if err != nil || digest != hex.EncodeToString(sum[:]) {
				t.Errorf("Digest(%q) = %s, %v; want %x", path, digest, err, sum)
			}
		}
	}
}

func testNotRegular(t *testing.T, f fixture) {
	for _, path := range []string{"/", "/usr", "/bin", "/fifo", "/fifolink"} {
		if file, err := f.root.Open(t.Context(), path); !errors.Is(err, rootfs.ErrNotRegular) {
			t.Errorf("Open(%q) = %v, %v; want ErrNotRegular", path, file, err)
		}
		if _, err := f.root.Digest(t.Context(), path); !errors.Is(err, rootfs.ErrNotRegular) {
			t.Errorf("Digest(%q): %v, want ErrNotRegular", path, err)
		}
	}
}

func testReadDir(t *testing.T, f fixture) {
	for path, want := range map[string][]string{
		"/usr": {"bin", "lib"}, "/lib": {"a", "dots", "libc.so.6"}, "/empty": {},
		"/usr/lib/a": {"top", "zero"},
	} {
		got, err := f.root.ReadDir(t.Context(), path)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ReadDir(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"/abs", "/fifo"} {
		if names, err := f.root.ReadDir(t.Context(), path); err == nil {
			t.Errorf("ReadDir(%q) = %q, want an error", path, names)
		}
	}
}

// testEscape aims links at a real file outside, from every depth.
func testEscape(t *testing.T, f fixture) {
	must(t, os.Symlink(filepath.Join(f.outside, "secret"), filepath.Join(f.dir, "out-abs")))
	must(t, os.Symlink("../../../../../../../../../.."+f.outside+"/secret", filepath.Join(f.dir, "usr/lib/out-rel")))
	must(t, os.Symlink(f.outside, filepath.Join(f.dir, "out-dir")))
	for _, path := range []string{"/out-abs", "/lib/out-rel", "/out-dir/secret", "/../secret", "../secret",
		"/usr/../../secret", "/out-dir/root/secret.in", f.outside + "/secret"} {
		each(t, f.root, path, func(method string, err error) {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%q): %v, want fs.ErrNotExist", method, path, err)
			}
		})
	}
}

func testConcurrent(t *testing.T, f fixture) {
	done := make(chan error)
	const workers = 8
	for range workers {
		go func() {
			for range 50 {
				if _, err := f.root.Digest(t.Context(), "/chain1"); err != nil {
					done <- err
					return
				}
				if _, err := f.root.ReadDir(t.Context(), "/lib"); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func testCancelled(t *testing.T, f fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.root.Lookup(ctx, "/bin/prog"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup after cancel: %v, want context.Canceled", err)
	}
	if _, err := f.root.Digest(ctx, "/bin/prog"); !errors.Is(err, context.Canceled) {
		t.Errorf("Digest after cancel: %v, want context.Canceled", err)
	}
}
