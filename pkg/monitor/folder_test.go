package monitor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What a killed host leaves behind goes with the next start; what another one
// still uses stays.
func TestFolders(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	used, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	left, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left.path, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// As the kernel does when a process is killed.
	if err := left.lock.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was left behind and is still there: %v", left.path, err)
	}
	for _, f := range []*folder{used, next} {
		if _, err := os.Stat(f.path); err != nil {
			t.Errorf("a folder in use is gone: %v", err)
		}
		f.remove()
		if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", f.path, err)
		}
	}
}
