// Package rootfs is the read-only view of a container's file system that the
// analysis works on. A Root never leaves its root: symbolic links, absolute or
// not, are resolved inside it, as chroot(2) would.
//
// Two implementations exist: Dir, a folder on this machine, and the server's
// view of a root on a remote node. Both pass the same test suite.
package rootfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// ErrNotRegular is what Open and Digest return for something that exists and
// isn't a regular file.
var ErrNotRegular = errors.New("not a regular file")

// Kind says what a path is.
type Kind uint8

// Kinds of path. Other covers devices, sockets and FIFOs, and the files of
// kernel file systems such as /proc, which nothing here ever opens.
const (
	KindFile Kind = iota + 1
	KindDir
	KindOther
)

// Entry is one existing path of a Root.
type Entry struct {
	// Path is canonical: absolute inside the root, no symbolic links.
	Path string
	Kind Kind
	// Mode holds the permission bits.
	Mode fs.FileMode
	// Size in bytes, for files.
	Size int64
}

// File is an open regular file. Its content doesn't change while it is open
// as far as the Root can know.
type File interface {
	io.ReaderAt
	io.Closer
	// Size in bytes.
	Size() int64
}

// Root is a container's file system. Methods are safe for concurrent use.
// A relative path starts at the root. A path that doesn't exist, or "", is
// fs.ErrNotExist; a loop of links, a path that
// runs through a file, or a name that is too long is also an error, never a
// panic or an endless walk.
type Root interface {
	// Lookup resolves path inside the root.
	Lookup(ctx context.Context, path string) (Entry, error)
	// Open opens the regular file that path resolves to. Its Digest is stable
	// while it is open.
	Open(ctx context.Context, path string) (File, error)
	// Digest returns the hex SHA-256 of the regular file that path resolves
	// to.
	Digest(ctx context.Context, path string) (string, error)
	// ReadDir returns the sorted names in the directory that path resolves to.
	ReadDir(ctx context.Context, path string) ([]string, error)
}

// Knower is a Root that may know a file's Digest without reading it.
type Knower interface {
	// LookupKnown is Lookup, and returns the digest, too; "" when the file must
	// be read or can't be.
	LookupKnown(ctx context.Context, path string) (Entry, string, error)
}
