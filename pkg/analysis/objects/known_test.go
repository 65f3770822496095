package objects

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confinehq/confine/pkg/rootfs"
)

// opened counts what is opened of a root.
type opened struct {
	*rootfs.Dir
	count int
}

func (o *opened) Open(ctx context.Context, path string) (rootfs.File, error) {
	o.count++
	return o.Dir.Open(ctx, path)
}

// TestKnown wants an object that is in memory found without a look into the file,
// for as long as that doesn't change.
func TestKnown(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "true")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // the digest of what changed just now isn't kept
	d, err := rootfs.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	root, memory, cache := &opened{Dir: d}, NewMemory(1<<20), stored{}
	load := func() *Object {
		t.Helper()
		s := NewSet(root, Options{Memory: memory, Cache: cache})
		defer s.Wait()
		root.count = 0
		o, err := s.Load(t.Context(), "/true")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Facts(t.Context()); err != nil {
			t.Fatal(err)
		}
		return o
	}
	load()
	want := load()
	if root.count == 0 {
		t.Error("nothing was opened before facts were in memory")
	}
	if got := load(); root.count != 0 || got.SHA256 != want.SHA256 || !got.Cached {
		t.Errorf("opened %d times, digest %s, want %s", root.count, got.SHA256, want.SHA256)
	}
	if err := os.WriteFile(file, append(program, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := load(); got.SHA256 == want.SHA256 || got.Cached {
		t.Errorf("a file that changed has the digest that it had before")
	}
}

// stored is a Cache.
type stored map[string][]byte

func (s stored) Get(_ context.Context, key string) ([]byte, error) { return s[key], nil }

func (s stored) Put(_ context.Context, key string, data []byte) error {
	s[key] = data
	return nil
}
