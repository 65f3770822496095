package objects

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/rootfs"
)

// brokenCache panics where facts are kept.
type brokenCache struct{}

func (brokenCache) Get(context.Context, string) ([]byte, error) { return nil, nil }
func (brokenCache) Put(context.Context, string, []byte) error   { panic("index out of range") }

// A panic in the background is an error of the object that it is about.
func TestPanicIsAnError(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := rootfs.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	set := NewSet(root, Options{Cache: brokenCache{}, Parallel: 1})
	o, err := set.Load(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	set.Wait()
	if _, err := o.Facts(t.Context()); !errors.Is(err, ErrGaveUp) {
		t.Errorf("error %v, want one that says that the analysis gave up", err)
	}
}
