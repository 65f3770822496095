package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxKept bounds the digests, and the names in folders, that a Dir keeps; it
	// starts anew when it has more.
	maxKept = 1 << 16
	// settled is how long a file or a folder must have been left alone before
	// what was read of it is kept: within the granularity of timestamps a second
	// write may leave no trace.
	settled = time.Second
)

// errChanged says that a file was written while it was read.
var errChanged = errors.New("the file changed while it was read; try again when nothing writes it")

// contentKey tells one content of one file or folder from every other.
type contentKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func keyOf(st *unix.Stat_t) contentKey {
	return contentKey{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim} //nolint:unconvert // Dev differs per architecture
}

// kept is what was read of contents, for as long as they stay the same.
type kept[T any] struct {
	mu     sync.Mutex
	values map[contentKey]T
	size   int // of all of them, as put was told
}

func (c *kept[T]) get(k contentKey) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[k]
	return v, ok
}

func (c *kept[T]) put(k contentKey, v T, size int) {
	if time.Since(time.Unix(k.ctime.Unix())) < settled {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size += size; c.values == nil || c.size > maxKept {
		c.values, c.size = map[contentKey]T{}, size
	}
	c.values[k] = v
}

// Digest implements Root. It reads a file once for as long as its inode, size
// and times stay the same.
func (d *Dir) Digest(ctx context.Context, path string) (string, error) {
	digest, err := d.digest(ctx, path)
	if err != nil {
		return "", &fs.PathError{Op: "digest", Path: path, Err: err}
	}
	return digest, nil
}

// LookupKnown implements Knower.
func (d *Dir) LookupKnown(ctx context.Context, path string) (Entry, string, error) {
	n, err := d.resolve(ctx, path)
	if err != nil {
		return Entry{}, "", &fs.PathError{Op: "lookup", Path: path, Err: err}
	}
	defer n.close()
	digest, _ := d.known(n)
	return n.entry(), digest, nil
}

// known is the digest of a file that was read before.
func (d *Dir) known(n *node) (string, bool) {
	if n.kind() != KindFile {
		return "", false
	}
	return d.digests.get(keyOf(&n.stat))
}

func (d *Dir) digest(ctx context.Context, path string) (string, error) {
	n, err := d.resolve(ctx, path)
	if err != nil {
		return "", err
	}
	defer n.close()
	if digest, ok := d.known(n); ok {
		return digest, nil
	}
	f, err := n.open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	before, err := f.key()
	if err != nil {
		return "", err
	}
	digest, err := hash(ctx, f, before.size)
	if err != nil {
		return "", err
	}
	after, err := f.key()
	if err != nil {
		return "", err
	}
	if before != after {
		return "", errChanged
	}
	d.digests.put(after, digest, 1)
	return digest, nil
}

// key identifies the content that the file has now.
func (f *dirFile) key() (contentKey, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return contentKey{}, err
	}
	var st unix.Stat_t
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return contentKey{}, err
	}
	return keyOf(&st), statErr
}

// hash reads exactly size bytes, in steps between which ctx can end it.
func hash(ctx context.Context, r io.ReaderAt, size int64) (string, error) {
	const step = 4 << 20
	h := sha256.New()
	buf := make([]byte, min(256<<10, max(size, 1)))
	for at := int64(0); at < size; at += step {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.NewSectionReader(r, at, min(step, size-at))}, buf)
		if err != nil {
			return "", err
		}
		if n != min(step, size-at) {
			return "", errChanged
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
