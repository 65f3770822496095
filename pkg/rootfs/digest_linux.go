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
	// maxDigests bounds the cache of a Dir; it starts anew when it is full.
	maxDigests = 1 << 16
	// settled is how long a file must have been left alone before its digest
	// is kept: within the granularity of timestamps a second write may leave
	// no trace.
	settled = time.Second
)

// errChanged says that a file was written while it was read.
var errChanged = errors.New("the file changed while it was read; try again when nothing writes it")

// digestKey tells one content of one file from every other.
type digestKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func keyOf(st *unix.Stat_t) digestKey {
	return digestKey{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim} //nolint:unconvert // Dev differs per architecture
}

// digestCache maps contents to hex SHA-256.
type digestCache struct {
	mu      sync.Mutex
	digests map[digestKey]string
}

func (c *digestCache) get(k digestKey) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.digests[k]
	return v, ok
}

func (c *digestCache) put(k digestKey, digest string) {
	if time.Since(time.Unix(k.ctime.Unix())) < settled {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.digests == nil || len(c.digests) >= maxDigests {
		c.digests = map[digestKey]string{}
	}
	c.digests[k] = digest
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

func (d *Dir) digest(ctx context.Context, path string) (string, error) {
	f, err := d.open(ctx, path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	before, err := f.key()
	if err != nil {
		return "", err
	}
	if digest, ok := d.digests.get(before); ok {
		return digest, nil
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
	d.digests.put(after, digest)
	return digest, nil
}

// key identifies the content that the file has now.
func (f *dirFile) key() (digestKey, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return digestKey{}, err
	}
	var st unix.Stat_t
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return digestKey{}, err
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
