package rootfs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Limits on what a hostile root can make a Dir do.
const (
	// maxFileSize bounds the files that are opened, in bytes: a sparse file
	// can claim any size.
	maxFileSize = 4 << 30
	// maxNames bounds the names read from one directory.
	maxNames = 1 << 18
)

// Dir is the Root below a folder of this machine. The folder may belong to a
// container that runs and is hostile: nothing in it, renamed at whatever
// moment, leads out of it.
//
// Magic links such as /proc/self/exe are followed by their text alone, inside
// the root.
type Dir struct {
	root     *os.File       // O_PATH
	digests  kept[string]   // hex SHA-256 of files
	listings kept[[]string] // sorted names in folders
}

var _ Root = (*Dir)(nil)

// NewDir returns the Root below a folder, which the caller trusts and whose
// links are followed: "/", a snapshot's mount, "/proc/PID/root". A Dir keeps
// its folder open, so that it stays the same one when the path comes to mean
// another; Close releases it, which should come before an unmount.
func NewDir(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	return &Dir{root: os.NewFile(uintptr(fd), path)}, nil
}

// Close releases the folder. Open files stay usable.
func (d *Dir) Close() error { return d.root.Close() }

// Lookup implements Root.
func (d *Dir) Lookup(ctx context.Context, path string) (Entry, error) {
	e, _, err := d.LookupKnown(ctx, path)
	return e, err
}

// Open implements Root.
func (d *Dir) Open(ctx context.Context, path string) (File, error) {
	f, err := d.open(ctx, path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

func (d *Dir) open(ctx context.Context, path string) (*dirFile, error) {
	n, err := d.resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	return n.open()
}

// open opens a regular file.
func (n *node) open() (*dirFile, error) {
	if n.kind() != KindFile {
		return nil, ErrNotRegular
	}
	if n.stat.Size > maxFileSize {
		return nil, fmt.Errorf("%d bytes is more than the limit of %d: %w", n.stat.Size, int64(maxFileSize), unix.EFBIG)
	}
	f, err := n.reopen(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	return &dirFile{File: f, size: n.stat.Size}, nil
}

// ReadDir implements Root.
func (d *Dir) ReadDir(ctx context.Context, path string) ([]string, error) {
	names, err := d.readDir(ctx, path)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: err}
	}
	return names, nil
}

func (d *Dir) readDir(ctx context.Context, path string) ([]string, error) {
	n, err := d.resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	if n.kind() != KindDir {
		return nil, unix.ENOTDIR
	}
	key := keyOf(&n.stat)
	if names, ok := d.listings.get(key); ok {
		return slices.Clone(names), nil
	}
	f, err := n.reopen(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames + 1)
	if err != nil && len(names) == 0 && !isEOF(err) {
		return nil, err
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("more than %d names in one directory", maxNames)
	}
	slices.Sort(names)
	if err := n.look(); err == nil && keyOf(&n.stat) == key && !n.pseudo {
		d.listings.put(key, slices.Clone(names), 1+len(names))
	}
	return names, nil
}

// dirFile is an open regular file.
type dirFile struct {
	*os.File
	size int64 // when it was opened
}

// Size implements File.
func (f *dirFile) Size() int64 { return f.size }

// reopen opens what an O_PATH descriptor names. The descriptor is pinned to
// the inode, whose type was checked, so nothing can be swapped in between.
func (n *node) reopen(flags int) (*os.File, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(n.fd), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), n.path), nil
}
