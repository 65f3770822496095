package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/confinehq/confine/internal/agent/observe"
	"github.com/confinehq/confine/pkg/rootfs"
)

// maxKept bounds the files that stay open for one root.
const maxKept = 2048

// heldRoot is the root of a container as its processes see it, mounts
// included. It stays readable after the container has ended: the open mount
// namespace keeps its mounts, and the kernel drops them with this process. What
// was executed or mapped is answered with the very files, whatever has become
// of their paths.
type heldRoot struct {
	*rootfs.Dir
	namespace *os.File

	mu   sync.Mutex
	kept map[string]*observe.Content // by path
}

var _ observe.Keeper = (*heldRoot)(nil)

// holdRoot opens the root of a process. The runtime has changed into the
// container's root already when a task is created.
func holdRoot(pid int) (*heldRoot, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	ns, err := os.Open(proc + "/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	dir, err := rootfs.NewDir(proc + "/root")
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	return &heldRoot{Dir: dir, namespace: ns, kept: map[string]*observe.Content{}}, nil
}

// Keep implements observe.Keeper.
func (h *heldRoot) Keep(path string, c *observe.Content) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept == nil || len(h.kept) >= maxKept || h.kept[path] != nil {
		return false
	}
	h.kept[path] = c
	return true
}

// find resolves a path to a kept file, or to what lies there.
func (h *heldRoot) find(ctx context.Context, name string) (rootfs.Entry, *observe.Content, error) {
	entry, err := h.Dir.Lookup(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		entry = rootfs.Entry{Path: path.Clean("/" + name), Mode: 0o755}
	} else if err != nil {
		return rootfs.Entry{}, nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.kept[entry.Path]; c != nil {
		entry.Kind, entry.Size = rootfs.KindFile, c.Size()
		return entry, c, nil
	}
	return entry, nil, err
}

// Lookup implements rootfs.Root.
func (h *heldRoot) Lookup(ctx context.Context, name string) (rootfs.Entry, error) {
	entry, _, err := h.find(ctx, name)
	return entry, err
}

// Open implements rootfs.Root.
func (h *heldRoot) Open(ctx context.Context, name string) (rootfs.File, error) {
	_, c, err := h.find(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case c != nil:
		return keptFile{c}, nil
	}
	return h.Dir.Open(ctx, name)
}

// Digest implements rootfs.Root.
func (h *heldRoot) Digest(ctx context.Context, name string) (string, error) {
	_, c, err := h.find(ctx, name)
	switch {
	case err != nil:
		return "", err
	case c != nil:
		return c.Digest()
	}
	return h.Dir.Digest(ctx, name)
}

// keptFile is a kept file as a rootfs.File: who opened it doesn't close it.
type keptFile struct{ *observe.Content }

// Close implements rootfs.File.
func (keptFile) Close() error { return nil }

// Close lets the kernel drop the container's mounts.
func (h *heldRoot) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.kept {
		_ = c.Close()
	}
	h.kept = nil
	_ = h.Dir.Close()
	_ = h.namespace.Close()
}
