// Package remote is the rootfs.Root of a container on another machine: a node
// answers questions about paths, and the content of files comes from objects
// that the node has uploaded.
//
// Every question costs a round trip, so that answers are kept for as long as
// the Root lives, questions that come up meanwhile go together, and a folder's
// names answer for all that is not in it. Nothing that the node says is
// believed before it has been checked.
package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// maxPath bounds a path that is asked about, in bytes, as PATH_MAX does.
	maxPath = 4096
	// maxName bounds one name, as NAME_MAX does.
	maxName = 255
	// maxEntries bounds the answers that one Root keeps.
	maxEntries = 1 << 19
)

// Source is the node's side.
type Source interface {
	// Lookup answers for each path, in order. It returns with an error when
	// the run that the root belongs to ends, whatever becomes of ctx.
	Lookup(ctx context.Context, paths []string) ([]*confinev1.LookupEntry, error)
	// Fetch makes sure that Object finds an object; its error says why the
	// node could not send it.
	Fetch(ctx context.Context, ref *confinev1.ObjectRef) error
	// Object opens an object by its hex digest; an error that is
	// fs.ErrNotExist says that it has to be fetched.
	Object(digest string) (rootfs.File, error)
}

// Root implements rootfs.Root.
type Root struct {
	source  Source
	batches *batcher

	mu sync.Mutex
	// entries maps a path as it was asked for to what is there.
	entries map[string]*entry
}

var _ rootfs.Root = (*Root)(nil)

// New returns a Root that asks source.
func New(source Source) *Root {
	return &Root{source: source, batches: newBatcher(source), entries: map[string]*entry{}}
}

// entry is a checked answer.
type entry struct {
	// err is why nothing can be said about the path; fs.ErrNotExist when
	// nothing is there.
	err   error
	found rootfs.Entry
	// unreadable is why the content, or the names, can't be had.
	unreadable error
	digest     string   // hex, of a file
	content    []byte   // of a small file
	inline     bool     // content is there
	names      []string // of a folder, sorted
}

// Prefetch asks about many paths at once, so that later questions about them
// cost nothing.
func (r *Root) Prefetch(ctx context.Context, paths []string) error {
	var ask []string
	r.mu.Lock()
	for _, p := range paths {
		if _, ok := r.entries[p]; !ok && checkPath(p) == nil {
			ask = append(ask, p)
		}
	}
	r.mu.Unlock()
	slices.Sort(ask)
	ask = slices.Compact(ask)
	for chunk := range slices.Chunk(ask, maxBatch) {
		got, err := r.batches.ask(ctx, chunk)
		if err != nil {
			return err
		}
		r.keep(got)
	}
	return nil
}

// Lookup implements rootfs.Root.
func (r *Root) Lookup(ctx context.Context, p string) (rootfs.Entry, error) {
	e, err := r.get(ctx, p)
	if err != nil {
		return rootfs.Entry{}, pathError("lookup", p, err)
	}
	return e.found, nil
}

// Digest implements rootfs.Root.
func (r *Root) Digest(ctx context.Context, p string) (string, error) {
	e, err := r.file(ctx, p)
	if err != nil {
		return "", pathError("digest", p, err)
	}
	return e.digest, nil
}

// ReadDir implements rootfs.Root.
func (r *Root) ReadDir(ctx context.Context, p string) ([]string, error) {
	e, err := r.get(ctx, p)
	switch {
	case err != nil:
	case e.found.Kind != rootfs.KindDir:
		err = syscall.ENOTDIR
	default:
		err = e.unreadable
	}
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	return slices.Clone(e.names), nil
}

// Open implements rootfs.Root.
func (r *Root) Open(ctx context.Context, p string) (rootfs.File, error) {
	e, err := r.file(ctx, p)
	if err != nil {
		return nil, pathError("open", p, err)
	}
	if e.inline {
		return memory{bytes.NewReader(e.content)}, nil
	}
	f, err := r.object(ctx, e)
	if err != nil {
		return nil, pathError("open", p, err)
	}
	if f.Size() != e.found.Size {
		_ = f.Close()
		return nil, pathError("open", p, fmt.Errorf("the node says it has %d bytes, and its content has %d", e.found.Size, f.Size()))
	}
	return f, nil
}

func (r *Root) object(ctx context.Context, e *entry) (rootfs.File, error) {
	f, err := r.source.Object(e.digest)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	ref := &confinev1.ObjectRef{Path: e.found.Path, Sha256: e.digest, Size: uint64(e.found.Size)}
	if err := r.source.Fetch(ctx, ref); err != nil {
		return nil, err
	}
	return r.source.Object(e.digest)
}

// file is the entry of a regular file whose content can be had.
func (r *Root) file(ctx context.Context, p string) (*entry, error) {
	e, err := r.get(ctx, p)
	switch {
	case err != nil:
		return nil, err
	case e.found.Kind != rootfs.KindFile:
		return nil, rootfs.ErrNotRegular
	case e.unreadable != nil:
		return nil, e.unreadable
	}
	return e, nil
}

// get answers from what is known, or asks the node. Along with a path it asks
// about the folder, whose names answer later questions.
func (r *Root) get(ctx context.Context, p string) (*entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkPath(p); err != nil {
		return nil, err
	}
	r.mu.Lock()
	e, ask := r.known(p)
	r.mu.Unlock()
	if e == nil {
		got, err := r.batches.ask(ctx, ask)
		if err != nil {
			return nil, err
		}
		r.keep(got)
		r.mu.Lock()
		e = r.entries[p]
		r.mu.Unlock()
	}
	return e, e.err
}

// known returns what is known of a path, or what to ask. r.mu is held.
func (r *Root) known(p string) (*entry, []string) {
	if e, ok := r.entries[p]; ok {
		return e, nil
	}
	// Only "/dir/name" can be answered from "/dir": dots, slashes at the end
	// and the like are the node's to resolve.
	if p != path.Clean(p) || !strings.HasPrefix(p, "/") || p == "/" {
		return nil, []string{p}
	}
	for child := p; child != "/"; child = path.Dir(child) {
		parent, ok := r.entries[path.Dir(child)]
		switch {
		case !ok:
			continue
		case parent.err != nil:
			return parent, nil
		case parent.found.Kind != rootfs.KindDir:
			return &entry{err: syscall.ENOTDIR}, nil
		}
		if _, found := slices.BinarySearch(parent.names, path.Base(child)); !found && parent.unreadable == nil {
			return absent(), nil
		}
		if child == p {
			return nil, []string{p}
		}
		break
	}
	return nil, []string{p, path.Dir(p)}
}

func absent() *entry { return &entry{err: fs.ErrNotExist} }

// keep remembers answers. The names of a folder are kept apart from what was
// asked, under its own path.
func (r *Root) keep(got map[string]*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries)+len(got) > maxEntries {
		clear(r.entries)
	}
	for p, e := range got {
		if _, ok := r.entries[p]; ok {
			continue // the first answer stays, so that the view is one
		}
		r.entries[p] = e
		if e.err == nil {
			if first, ok := r.entries[e.found.Path]; ok {
				r.entries[p] = first
			} else {
				r.entries[e.found.Path] = e
			}
		}
	}
}

// checkPath refuses what no file system resolves, before it costs anything.
func checkPath(p string) error {
	switch {
	case p == "":
		return fs.ErrNotExist
	case len(p) >= maxPath:
		return syscall.ENAMETOOLONG
	case strings.ContainsRune(p, 0):
		return syscall.EINVAL
	case !utf8.ValidString(p):
		return errors.New("names that are not UTF-8 can't be looked up on a node")
	}
	return nil
}

func pathError(op, p string, err error) error {
	return &fs.PathError{Op: op, Path: clip(p), Err: err}
}

func clip(s string) string {
	if len(s) > maxPath {
		return s[:64] + "..."
	}
	return s
}

// check turns an answer of the node into an entry, or into an error that says
// that the node can't be believed.
func check(p string, a *confinev1.LookupEntry) (*entry, error) {
	if a.GetPath() != p {
		return nil, fmt.Errorf("the node answered for %q instead of %q", clip(a.GetPath()), p)
	}
	if a.GetType() == "" {
		if a.GetError() != "" {
			return &entry{err: errors.New(clip(a.GetError()))}, nil
		}
		return absent(), nil
	}
	resolved := a.GetResolved()
	if !strings.HasPrefix(resolved, "/") || path.Clean(resolved) != resolved || checkPath(resolved) != nil {
		return nil, fmt.Errorf("the node resolved %q to %q, which is no canonical path", p, clip(resolved))
	}
	e := &entry{found: rootfs.Entry{Path: resolved, Mode: fs.FileMode(a.GetMode()).Perm()}}
	if a.GetError() != "" {
		e.unreadable = errors.New(clip(a.GetError()))
	}
	switch a.GetType() {
	case "file":
		e.found.Kind = rootfs.KindFile
		return e, e.checkFile(a)
	case "dir":
		e.found.Kind = rootfs.KindDir
		return e, e.checkDir(a)
	case "other":
		e.found.Kind = rootfs.KindOther
		return e, nil
	}
	return nil, fmt.Errorf("the node says that %q is a %q", p, clip(a.GetType()))
}

func (e *entry) checkFile(a *confinev1.LookupEntry) error {
	if a.GetSize() > 1<<62 {
		return fmt.Errorf("the node says that %q has %d bytes", e.found.Path, a.GetSize())
	}
	e.found.Size = int64(a.GetSize())
	if e.unreadable != nil {
		return nil
	}
	if sum, err := hex.DecodeString(a.GetSha256()); err != nil || len(sum) != sha256.Size || strings.ToLower(a.GetSha256()) != a.GetSha256() {
		return fmt.Errorf("the node gave %q the digest %q", e.found.Path, clip(a.GetSha256()))
	}
	e.digest = a.GetSha256()
	if len(a.GetContent()) == 0 && a.GetSize() != 0 {
		return nil
	}
	if sum := sha256.Sum256(a.GetContent()); hex.EncodeToString(sum[:]) != e.digest || uint64(len(a.GetContent())) != a.GetSize() {
		return fmt.Errorf("the node sent a content of %q that does not match its digest", e.found.Path)
	}
	e.content, e.inline = a.GetContent(), true
	return nil
}

func (e *entry) checkDir(a *confinev1.LookupEntry) error {
	e.names = slices.Clone(a.GetNames())
	slices.Sort(e.names)
	for _, n := range e.names {
		if n == "" || n == "." || n == ".." || len(n) > maxName || strings.ContainsAny(n, "/\x00") {
			return fmt.Errorf("the node found the name %q in %q", clip(n), e.found.Path)
		}
	}
	return nil
}

// memory is an open file whose content came with the answer.
type memory struct{ *bytes.Reader }

// Size implements rootfs.File.
func (m memory) Size() int64 { return m.Reader.Size() }

// Close implements rootfs.File.
func (memory) Close() error { return nil }
