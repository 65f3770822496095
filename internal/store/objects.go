package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrDigest is returned when content does not have the digest or size that
	// was announced; the content is gone then.
	ErrDigest = errors.New("content does not match its digest")
	// ErrOffset is returned for a chunk that does not continue an upload.
	ErrOffset = errors.New("chunk does not continue the upload")
	// ErrTooLarge is returned for an object above the limit.
	ErrTooLarge = errors.New("object is too large")
	// ErrBusy is returned when another upload of the same object is under way.
	ErrBusy = errors.New("object is being uploaded already")
)

const (
	partialSuffix = ".partial"
	// partialLife is how long the start of an upload waits for its rest.
	partialLife = 24 * time.Hour
)

// Digest is the SHA-256 of an object. Only ParseDigest and sums make one, so
// that a Digest is always safe as a file name.
type Digest struct{ hex string }

// ParseDigest accepts 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	if len(s) != 2*sha256.Size || strings.Trim(s, "0123456789abcdef") != "" {
		return Digest{}, fmt.Errorf("digest %q is not a hex SHA-256", clip(s))
	}
	return Digest{s}, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// String returns 64 hex digits.
func (d Digest) String() string { return d.hex }

// Objects is a folder of files that are named by their content:
// ab/abcd..., with .partial behind the name while an upload is incomplete.
type Objects struct {
	dir           string
	limit, single int64 // bytes of all objects, of one

	mu     sync.Mutex
	used   int64             // bytes of all files, partial ones and reservations included
	active map[Digest]bool   // uploads under way
	open   map[Digest]int    // readers
	size   map[Digest]object // complete objects
}

type object struct {
	size int64
	used time.Time // last opened
}

func openObjects(dir string, limit, single int64) (*Objects, error) {
	if limit <= 0 {
		limit = 32 << 30
	}
	if single <= 0 {
		single = 1 << 30
	}
	o := &Objects{
		dir: dir, limit: limit, single: single,
		active: map[Digest]bool{}, open: map[Digest]int{}, size: map[Digest]object{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open objects: %w", err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, partial := strings.CutSuffix(e.Name(), partialSuffix)
		d, err := ParseDigest(name)
		if err != nil || partial && time.Since(info.ModTime()) > partialLife {
			return os.Remove(path)
		}
		o.used += info.Size()
		if !partial {
			o.size[d] = object{info.Size(), info.ModTime()}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open objects: %w", err)
	}
	return o, nil
}

// Limit is the largest size that one object can have, in bytes.
func (o *Objects) Limit() int64 { return o.single }

func (o *Objects) path(d Digest) string { return filepath.Join(o.dir, d.hex[:2], d.hex) }

// Has tells whether an object is complete, and if not, how many bytes of it
// are there.
func (o *Objects) Has(d Digest) (bool, int64) {
	o.mu.Lock()
	if _, ok := o.size[d]; ok {
		o.mu.Unlock()
		return true, 0
	}
	o.mu.Unlock()
	info, err := os.Stat(o.path(d) + partialSuffix)
	if err != nil {
		return false, 0
	}
	return false, info.Size()
}

// File is an open object.
type File struct {
	*os.File
	size int64
	done func()
}

// Size returns the object's size in bytes.
func (f *File) Size() int64 { return f.size }

// Close closes the file; the object may be evicted again.
func (f *File) Close() error {
	f.done()
	return f.File.Close()
}

// Open opens a complete object, or returns ErrNotFound.
func (o *Objects) Open(d Digest) (*File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.size[d]
	if !ok {
		return nil, fmt.Errorf("open object %s: %w", d, ErrNotFound)
	}
	f, err := os.Open(o.path(d))
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	e.used = time.Now()
	o.size[d] = e
	// The time survives a restart, for the order of eviction; it may be lost.
	_ = os.Chtimes(o.path(d), time.Time{}, e.used)
	o.open[d]++
	return &File{File: f, size: e.size, done: sync.OnceFunc(func() { o.release(d) })}, nil
}

func (o *Objects) release(d Digest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open[d]--; o.open[d] <= 0 {
		delete(o.open, d)
	}
}

// Pin keeps an object from eviction until the returned function is called. It
// needs not be complete yet.
func (o *Objects) Pin(d Digest) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[d]++
	return sync.OnceFunc(func() { o.release(d) })
}

// Put keeps content that is at hand.
func (o *Objects) Put(content []byte) (Digest, error) {
	sum := sha256.Sum256(content)
	d := Digest{hex.EncodeToString(sum[:])}
	if have, _ := o.Has(d); have {
		return d, nil
	}
	u, err := o.Begin(d, int64(len(content)), 0)
	if err != nil {
		return Digest{}, err
	}
	defer u.Abort()
	if _, err := io.Copy(u, bytes.NewReader(content)); err != nil {
		return Digest{}, err
	}
	return d, u.Commit()
}

// Begin starts or continues the upload of an object of a given size at an
// offset, which has to be what Has told. The whole size is reserved.
func (o *Objects) Begin(d Digest, size, offset int64) (*Upload, error) {
	if size < 0 || size > o.single {
		return nil, fmt.Errorf("upload %s: %w: %d bytes, the limit is %d", d, ErrTooLarge, size, o.single)
	}
	o.mu.Lock()
	if o.active[d] {
		o.mu.Unlock()
		return nil, fmt.Errorf("upload %s: %w", d, ErrBusy)
	}
	o.active[d] = true
	o.mu.Unlock()
	u := &Upload{o: o, digest: d, size: size, sum: sha256.New()}
	if err := u.start(offset); err != nil {
		u.Abort()
		return nil, fmt.Errorf("upload %s: %w", d, err)
	}
	return u, nil
}

// Upload is the writing of one object. One goroutine uses it.
type Upload struct {
	o        *Objects
	digest   Digest
	size     int64
	reserved int64 // bytes counted in o.used that aren't on disk yet
	at       int64
	file     *os.File
	sum      hash.Hash
	closed   bool
}

func (u *Upload) start(offset int64) error {
	path := u.o.path(u.digest) + partialSuffix
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return full(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return full(err)
	}
	u.file = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if offset < 0 || offset > info.Size() || offset > u.size {
		return fmt.Errorf("%w: offset %d, %d bytes are there", ErrOffset, offset, info.Size())
	}
	if err := f.Truncate(offset); err != nil {
		return err
	}
	u.o.account(offset - info.Size())
	if _, err := io.Copy(u.sum, f); err != nil { // what was there before
		return err
	}
	u.at = offset
	if err := u.o.reserve(u.size - offset); err != nil {
		return err
	}
	u.reserved = u.size - offset
	return checkSpace(u.o.dir, u.reserved)
}

// Write appends to the object; it refuses what exceeds the announced size.
func (u *Upload) Write(p []byte) (int, error) {
	if u.at+int64(len(p)) > u.size {
		return 0, fmt.Errorf("upload %s: %w: more than the announced %d bytes", u.digest, ErrDigest, u.size)
	}
	n, err := u.file.Write(p)
	u.sum.Write(p[:n])
	u.at += int64(n)
	u.reserved -= int64(n)
	return n, full(err)
}

// Offset is where the next chunk goes.
func (u *Upload) Offset() int64 { return u.at }

// Commit checks size and digest and makes the object visible. A mismatch
// removes what was uploaded.
func (u *Upload) Commit() error {
	if u.at != u.size {
		return fmt.Errorf("upload %s: %w: %d of %d bytes came", u.digest, ErrOffset, u.at, u.size)
	}
	if hex.EncodeToString(u.sum.Sum(nil)) != u.digest.hex {
		u.discard()
		return fmt.Errorf("upload %s: %w", u.digest, ErrDigest)
	}
	path := u.o.path(u.digest)
	err := u.file.Sync()
	if err == nil {
		err = os.Rename(path+partialSuffix, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.digest, full(err))
	}
	u.o.mu.Lock()
	u.o.size[u.digest] = object{u.size, time.Now()}
	u.o.mu.Unlock()
	u.Abort()
	return nil
}

// Abort ends the upload; what came so far stays for a later Begin. It does
// nothing after Commit.
func (u *Upload) Abort() {
	if u.closed {
		return
	}
	u.closed = true
	if u.file != nil {
		_ = u.file.Close()
	}
	u.o.account(-u.reserved)
	u.o.mu.Lock()
	delete(u.o.active, u.digest)
	u.o.mu.Unlock()
}

func (u *Upload) discard() {
	_ = os.Remove(u.o.path(u.digest) + partialSuffix)
	u.o.account(-u.at)
	u.Abort()
}

func (o *Objects) account(delta int64) {
	o.mu.Lock()
	o.used += delta
	o.mu.Unlock()
}

// reserve makes room for size bytes, by evicting what was not used for the
// longest time.
func (o *Objects) reserve(size int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.used+size > o.limit {
		o.evict(o.used + size - o.limit)
	}
	if o.used+size > o.limit {
		return fmt.Errorf("%w (objects: %d of %d MiB are in use)", ErrFull, o.used>>20, o.limit>>20)
	}
	o.used += size
	return nil
}

func (o *Objects) evict(need int64) {
	all := make([]Digest, 0, len(o.size))
	for d := range o.size {
		if o.open[d] == 0 {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Digest) int { return o.size[a].used.Compare(o.size[b].used) })
	for _, d := range all {
		if need <= 0 {
			return
		}
		if os.Remove(o.path(d)) != nil {
			continue
		}
		need -= o.size[d].size
		o.used -= o.size[d].size
		delete(o.size, d)
	}
}

// full names a full disk as such.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
