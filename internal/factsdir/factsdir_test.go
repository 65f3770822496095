package factsdir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDir(t *testing.T) {
	ctx := t.Context()
	d := open(t, t.TempDir()+"/facts")
	if got, err := d.Get(ctx, "none"); got != nil || err != nil {
		t.Errorf("Get of an unknown key = %q, %v; want nil, nil", got, err)
	}
	for _, want := range []string{"one", "another"} {
		if err := d.Put(ctx, "v1.abc-0", []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Get(ctx, "v1.abc-0"); string(got) != want || err != nil {
			t.Errorf("Get = %q, %v; want %q", got, err, want)
		}
	}
	for _, key := range []string{"", "../up", "a/b", ".hidden", "UPPER"} {
		if err := d.Put(ctx, key, nil); err == nil {
			t.Errorf("Put(%q) went through", key)
		}
		if _, err := d.Get(ctx, key); err == nil {
			t.Errorf("Get(%q) went through", key)
		}
	}
}

func TestOpenForeign(t *testing.T) {
	for _, mode := range []os.FileMode{0o770, 0o702, 0o777} {
		path := filepath.Join(t.TempDir(), "facts")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil {
			t.Errorf("a folder of mode %o was opened", mode)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a folder of another user's")
	}
	path := filepath.Join(t.TempDir(), "facts")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("the folder of another user was opened")
	}
}

// TestBound fills a folder with more than it may hold, by several Dirs: the
// oldest files go, and no more of them than need be.
func TestBound(t *testing.T) {
	const size, most = 1000, 20
	path := filepath.Join(t.TempDir(), "facts")
	old := time.Now().Add(-time.Hour)
	for i := range 3 * most {
		d := open(t, path)
		d.max = size * most
		key := fmt.Sprintf("k%03d", i)
		if err := d.Put(t.Context(), key, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(path, key), old, old.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(entries); n > most || i >= most && n < most*3/4 {
			t.Fatalf("%d files after %d were put", n, i+1)
		}
		if last := entries[len(entries)-1].Name(); last != key {
			t.Fatalf("the newest file is %s, want %s", last, key)
		}
	}
	d := open(t, path)
	d.max = size * most
	for i := range 3 * most {
		if err := d.Put(t.Context(), fmt.Sprintf("n%03d", i), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(path); err != nil || len(entries) > most {
			t.Fatalf("%d files, %v", len(entries), err)
		}
	}
}
