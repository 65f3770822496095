package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirect holds what direct resolves to the walk by parts.
func TestDirect(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "root")
	for _, d := range []string{"usr/lib/x", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"../secret", "usr/lib/x/liba.so.1.2", "etc/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{
		"lib": "usr/lib", "abs": "/usr/lib", "slash": "usr/lib/", "here": ".", "out": "../../etc", "first": "lib",
		"usr/lib/x/liba.so.1": "liba.so.1.2", "usr/lib/x/liba.so": "liba.so.1", "usr/lib/x/far": "/etc/file", "usr/lib/x/up": "../../../../secret",
		"usr/lib/mid": "x", "usr/lib/x/nowhere": "none", "loop": "loop", "usr/lib/x/loop": "loop", "etc/to": "/lib/x/liba.so", "usr/lib/x/dots": "a..b",
	}
	for i := range maxLinks + 2 { // as many links as there may be, and more
		links[fmt.Sprint("many", i)] = fmt.Sprint("/many", i+1)
	}
	links[fmt.Sprint("many", maxLinks+2)] = "/etc/file"
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for p, direct := range map[string]bool{
		"/etc/file": true, "/lib/x/liba.so.1.2": true, "/lib/x/liba.so": true, "/abs/x/liba.so.1": true, "/lib/x/far": true, "/etc/to": true, "/first/x/liba.so": true,
		"/lib": true, "/usr/lib/mid": true, "/many3": true, "/many4": true, "/lib/mid/liba.so": false, "/slash/x/liba.so": false, "/here/etc/file": false, "/out/file": false,
		"/usr/lib/x/up": false, "/loop": false, "/loop/x": false, "/usr/lib/x/loop": false, "/many0": false, "/many1": false, "/many2": false, "/": false, "etc/file": false,
		"/etc/../etc/file": false, "/etc/file/": false, "/etc/file/x": false,
	} {
		n, err := d.direct(p)
		if err != nil && !errors.Is(err, unix.ENOTDIR) || (n != nil) != direct {
			t.Errorf("%s: %v, %v; want one in few steps: %v", p, n, err, direct)
		}
		if n == nil {
			continue
		}
		w, err := d.byParts(t.Context(), p)
		if err != nil {
			t.Errorf("%s: found in few steps, and by parts: %v", p, err)
		} else {
			if n.path != w.path || n.stat.Ino != w.stat.Ino || n.stat.Mode != w.stat.Mode {
				t.Errorf("%s is %s in few steps and %s by parts", p, n.path, w.path)
			}
			w.close()
		}
		n.close()
	}
	for _, p := range []string{"/lib/x/nowhere", "/lib/none", "/none/x", "/usr/lib/x/dots"} {
		if n, err := d.direct(p); n != nil || err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s, which isn't there: %v, %v", p, n, err)
		}
		if _, err := d.resolve(t.Context(), p); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s, which isn't there: %v", p, err)
		}
	}
}
