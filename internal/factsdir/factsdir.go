// Package factsdir keeps facts about objects in a folder, for analyses
// without a server.
package factsdir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sync"
	"syscall"

	"github.com/confinehq/confine/pkg/analysis"
)

// keyPattern is what analysis.FactsCache promises about keys; it keeps them
// from leaving the folder.
var keyPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,199}$`)

// maxSize bounds what a folder holds, in bytes. Facts take some 3 % of their
// objects.
const maxSize = 512 << 20

// Dir is a folder with one file for each key. Several processes may use it at
// the same time.
type Dir struct {
	root *os.Root
	max  int64

	mu   sync.Mutex
	size int64 // of all files, 0 until something was put
}

var _ analysis.FactsCache = (*Dir)(nil)

// Open makes the folder when there is none. Facts decide what a profile allows:
// one that others could write to is refused.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open facts cache: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open facts cache: %w", err)
	}
	if err := private(root); err != nil {
		root.Close()
		return nil, fmt.Errorf("open facts cache: %s %w", path, err)
	}
	return &Dir{root: root, max: maxSize}, nil
}

// private wants a folder that nobody but this user can write to.
func private(root *os.Root) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return errors.New("belongs to another user")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return errors.New("can be written to by others; take that from them with chmod go-w")
	}
	return nil
}

// Close releases the folder.
func (d *Dir) Close() error { return d.root.Close() }

// Get implements analysis.FactsCache.
func (d *Dir) Get(_ context.Context, key string) ([]byte, error) {
	if err := check(key); err != nil {
		return nil, err
	}
	data, err := d.root.ReadFile(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	return data, nil
}

// Put implements analysis.FactsCache. A reader sees all of it or nothing.
func (d *Dir) Put(_ context.Context, key string, facts []byte) error {
	if err := check(key); err != nil {
		return err
	}
	if err := d.put(key, facts); err != nil {
		return fmt.Errorf("keep facts: %w", err)
	}
	return nil
}

func (d *Dir) put(key string, facts []byte) error {
	name := ".new-" + rand.Text()
	defer d.root.Remove(name)
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(facts); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := d.root.Rename(name, key); err != nil {
		return err
	}
	return d.bound(int64(len(facts)))
}

// bound removes the oldest files when there is too much, after some bytes were
// added: a quarter, so that it is done seldom.
func (d *Dir) bound(added int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.size += added; d.size > added && d.size <= d.max {
		return nil
	}
	files, err := d.files()
	if err != nil {
		return err
	}
	d.size = 0
	for _, f := range files {
		d.size += f.Size()
	}
	if d.size <= d.max {
		return nil
	}
	for _, f := range files {
		if d.size <= d.max/4*3 {
			break
		}
		if err := d.root.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		d.size -= f.Size()
	}
	return nil
}

// files lists what there is, the oldest first.
func (d *Dir) files() ([]fs.FileInfo, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var out []fs.FileInfo
	for _, e := range entries {
		// Another process may have removed it.
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	return out, nil
}

func check(key string) error {
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("facts key %q holds characters that it may not", key)
	}
	return nil
}
