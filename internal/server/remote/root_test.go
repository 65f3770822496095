package remote_test

import (
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
	"sync"
	"syscall"
	"testing"

	"github.com/confinehq/confine/internal/server/remote"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/rootfs/rootfstest"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// node answers from a folder, as an agent does.
type node struct {
	dir *rootfs.Dir
	// inline is the largest content that answers carry, in bytes.
	inline int64
	// tamper, when set, changes an answer.
	tamper func(*confinev1.LookupEntry)

	mu      sync.Mutex
	asked   [][]string
	objects map[string][]byte
	fetched int
}

func newNode(t *testing.T, dir string) *node {
	t.Helper()
	d, err := rootfs.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &node{dir: d, inline: 64 << 10, objects: map[string][]byte{}}
}

func (n *node) Lookup(ctx context.Context, paths []string) ([]*confinev1.LookupEntry, error) {
	n.mu.Lock()
	n.asked = append(n.asked, paths)
	n.mu.Unlock()
	var out []*confinev1.LookupEntry
	for _, p := range paths {
		e := n.lookup(ctx, p)
		if n.tamper != nil {
			n.tamper(e)
		}
		out = append(out, e)
	}
	return out, nil
}

func (n *node) lookup(ctx context.Context, p string) *confinev1.LookupEntry {
	e := &confinev1.LookupEntry{Path: p}
	found, err := n.dir.Lookup(ctx, p)
	if errors.Is(err, fs.ErrNotExist) {
		return e
	}
	if err != nil {
		e.Error = err.Error()
		return e
	}
	e.Resolved, e.Mode, e.Type = found.Path, uint32(found.Mode.Perm()), "other"
	switch found.Kind {
	case rootfs.KindDir:
		e.Type = "dir"
		e.Names, _ = n.dir.ReadDir(ctx, p)
	case rootfs.KindFile:
		e.Type, e.Size = "file", uint64(found.Size)
		e.Sha256, _ = n.dir.Digest(ctx, p)
		if found.Size <= n.inline {
			e.Content = n.read(ctx, p)
		}
	}
	return e
}

func (n *node) read(ctx context.Context, p string) []byte {
	f, err := n.dir.Open(ctx, p)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	return b
}

func (n *node) Fetch(ctx context.Context, ref *confinev1.ObjectRef) error {
	b := n.read(ctx, ref.GetPath())
	sum := sha256.Sum256(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetched++
	n.objects[hex.EncodeToString(sum[:])] = b
	return nil
}

type object struct{ *strings.Reader }

func (object) Close() error  { return nil }
func (o object) Size() int64 { return o.Reader.Size() }

func (n *node) Object(digest string) (rootfs.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.objects[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return object{strings.NewReader(string(b))}, nil
}

func TestRoot(t *testing.T) {
	rootfstest.Run(t, func(t *testing.T, dir string) rootfs.Root { return remote.New(newNode(t, dir)) })
}

// TestRootByObjects runs the suite with every content as an object.
func TestRootByObjects(t *testing.T) {
	rootfstest.Run(t, func(t *testing.T, dir string) rootfs.Root {
		n := newNode(t, dir)
		n.inline = -1
		return remote.New(n)
	})
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAsksLittle states what costs a round trip and what doesn't.
func TestAsksLittle(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"lib/a": "A", "lib/b": "B"})
	n := newNode(t, dir)
	r := remote.New(n)
	for _, c := range []struct {
		path  string
		trips int // so far
		there bool
	}{
		{"/lib/a", 1, true},     // asks for the folder as well
		{"/lib/a", 1, true},     // known
		{"/lib/none", 1, false}, // not among the folder's names
		{"/lib/x/y/z", 1, false},
		{"/lib/a/x", 1, false},
		{"/lib", 1, true},
		{"/lib/b", 2, true},
		{"/etc/x/y", 3, false}, // asks for "/etc/x" as well
		{"/etc/x/y", 3, false},
	} {
		_, err := r.Lookup(t.Context(), c.path)
		if (err == nil) != c.there || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("Lookup(%q): %v", c.path, err)
		}
		if len(n.asked) != c.trips {
			t.Errorf("after %q: %d questions, want %d: %q", c.path, len(n.asked), c.trips, n.asked)
		}
	}
	if err := r.Prefetch(t.Context(), []string{"/lib/a", "/lib/b", "/opt", "/lib"}); err != nil {
		t.Fatal(err)
	}
	if got := n.asked[3]; len(n.asked) != 4 || !slices.Equal(got, []string{"/opt"}) {
		t.Errorf("prefetched %q", got)
	}
}

// TestViewStaysOne changes the root after the first answer.
func TestViewStaysOne(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "one"})
	r := remote.New(newNode(t, dir))
	first, err := r.Digest(t.Context(), "/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"f": "three"})
	if again, err := r.Digest(t.Context(), "//f"); err != nil || again != first {
		t.Errorf("the digest became %s, %v", again, err)
	}
}

func TestFetchesOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "content"})
	n := newNode(t, dir)
	n.inline = -1
	r := remote.New(n)
	for range 3 {
		f, err := r.Open(t.Context(), "/f")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if n.fetched != 1 {
		t.Errorf("fetched %d times", n.fetched)
	}
}

func TestLies(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "content", "d/x": ""})
	for name, c := range map[string]struct {
		path   string
		tamper func(*confinev1.LookupEntry)
	}{
		"other path":        {"/f", func(e *confinev1.LookupEntry) { e.Path = "/g" }},
		"relative":          {"/f", func(e *confinev1.LookupEntry) { e.Resolved = "f" }},
		"climbing":          {"/f", func(e *confinev1.LookupEntry) { e.Resolved = "/../etc/shadow" }},
		"not canonical":     {"/f", func(e *confinev1.LookupEntry) { e.Resolved = "//f" }},
		"unknown type":      {"/f", func(e *confinev1.LookupEntry) { e.Type = "fifo" }},
		"digest not hex":    {"/f", func(e *confinev1.LookupEntry) { e.Sha256 = "../../x" }},
		"digest upper case": {"/f", func(e *confinev1.LookupEntry) { e.Sha256 = strings.ToUpper(e.Sha256) }},
		"wrong content":     {"/f", func(e *confinev1.LookupEntry) { e.Content = []byte("CONTENT") }},
		"wrong size":        {"/f", func(e *confinev1.LookupEntry) { e.Size = 3 }},
		"huge size":         {"/f", func(e *confinev1.LookupEntry) { e.Size = 1 << 63 }},
		"name with a slash": {"/d", func(e *confinev1.LookupEntry) { e.Names = []string{"a/b"} }},
		"name ..":           {"/d", func(e *confinev1.LookupEntry) { e.Names = []string{".."} }},
	} {
		n := newNode(t, dir)
		n.tamper = func(e *confinev1.LookupEntry) {
			if e.Path == c.path {
				c.tamper(e)
			}
		}
		if e, err := remote.New(n).Lookup(t.Context(), c.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: believed: %+v, %v", name, e, err)
		}
	}
	n := newNode(t, dir)
	n.inline = -1
	n.tamper = func(e *confinev1.LookupEntry) { e.Size = 3 }
	if f, err := remote.New(n).Open(t.Context(), "/f"); err == nil {
		t.Errorf("object of another size: opened, %d bytes", f.Size())
	}
}
