// Package objects loads ELF files from a root file system and their facts
// from a cache, each content once.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/rootfs"
)

// Cache keeps encoded facts by key. Get returns nil, nil when there is nothing.
type Cache interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, facts []byte) error
}

// ErrGaveUp is an object's that the analysis can't cope with, which is a mistake
// of the analysis.
var ErrGaveUp = errors.New("the analysis gave up over it; please report it")

// Object is one ELF file of a root. It is safe for concurrent use.
type Object struct {
	Path   string // canonical, inside the root
	SHA256 string // hex
	Size   int64  // bytes
	Cached bool   // its facts come from the cache
	Header facts.Header

	set   *Set
	done  chan struct{} // closed when known and err are set
	known *known
	code  *facts.Object
	err   error
	mu    sync.Mutex // guards code after done
}

// Facts waits for the facts of the object.
func (o *Object) Facts(ctx context.Context) (*facts.Facts, error) {
	select {
	case <-o.done:
		if o.err != nil {
			return nil, o.err
		}
		return o.known.facts, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Code returns the object's code, which answers questions that its facts
// leave open; it is read again when the facts came from the cache.
func (o *Object) Code(ctx context.Context) (*facts.Object, error) {
	if _, err := o.Facts(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.code != nil {
		return o.code, nil
	}
	f, err := o.set.parse(ctx, o.Path, &facts.Scratch{})
	if err != nil {
		return nil, err
	}
	code, err := facts.Build(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("analyse %s: %w", o.Path, err)
	}
	o.code = code
	return code, nil
}

// Set holds the objects of one root.
type Set struct {
	root      rootfs.Root
	cache     Cache
	memory    *Memory
	slots     *semaphore.Weighted
	questions map[string][]Question
	progress  func(done, total int)

	wait sync.WaitGroup

	mu          sync.Mutex
	byPath      map[string]*entry // key: canonical path
	free        []*facts.Scratch  // of objects that are done
	done, total int
}

type entry struct {
	once   sync.Once
	object *Object
	err    error
}

// Options of a Set. The zero value is one.
type Options struct {
	// Cache may be nil, and so may Memory, which keeps what comes from Cache.
	Cache  Cache
	Memory *Memory
	// Parallel is the number of objects that are analysed at once.
	Parallel int
	// Questions are about arguments of imports; key: the name of an import.
	// Others can be asked, too, and take longer to answer.
	Questions map[string][]Question
	// Progress, when not nil, is called with the number of objects done and
	// known.
	Progress func(done, total int)
}

// NewSet returns the objects of a root.
func NewSet(root rootfs.Root, o Options) *Set {
	return &Set{
		root: root, cache: o.Cache, memory: o.Memory, questions: o.Questions, progress: o.Progress,
		slots: semaphore.NewWeighted(int64(max(1, o.Parallel))), byPath: map[string]*entry{},
	}
}

// Wait waits for everything that the set has under way.
func (s *Set) Wait() { s.wait.Wait() }

// Load returns the object at a path; links are resolved inside the root. Its
// facts are computed in the background. Errors: object.ErrNotELF and the other
// errors of package object, and those of the root.
func (s *Set) Load(ctx context.Context, path string) (*Object, error) {
	e, sum, err := s.lookup(ctx, path)
	if err != nil {
		return nil, err
	}
	if e.Kind != rootfs.KindFile {
		return nil, fmt.Errorf("load %s: %w", path, rootfs.ErrNotRegular)
	}
	s.mu.Lock()
	ent := s.byPath[e.Path]
	if ent == nil {
		ent = &entry{}
		s.byPath[e.Path] = ent
	}
	s.mu.Unlock()
	ent.once.Do(func() { ent.object, ent.err = s.load(ctx, e, sum) })
	return ent.object, ent.err
}

// Loaded returns what Load returned for the file at a canonical path, nil when
// that is nothing.
func (s *Set) Loaded(path string) *Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byPath[path]; e != nil {
		return e.object
	}
	return nil
}

// lookup finds what a path is, and its digest where that costs nothing.
func (s *Set) lookup(ctx context.Context, path string) (e rootfs.Entry, sum string, err error) {
	if k, ok := s.root.(rootfs.Knower); ok && s.memory != nil {
		return k.LookupKnown(ctx, path)
	}
	e, err = s.root.Lookup(ctx, path)
	return e, "", err
}

// load makes the object of a file, whose digest may be known.
func (s *Set) load(ctx context.Context, e rootfs.Entry, sum string) (*Object, error) {
	if sum != "" {
		if o := s.remembered(e, sum); o != nil {
			return o, nil
		}
	}
	if err := s.magic(ctx, e.Path); err != nil {
		return nil, err
	}
	sum, err := s.root.Digest(ctx, e.Path)
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", e.Path, err)
	}
	if o := s.remembered(e, sum); o != nil {
		return o, nil
	}
	o := s.object(e, sum)
	if data := s.cached(ctx, sum); data != nil {
		if h, err := facts.DecodeHeader(data); err == nil {
			o.Cached, o.Header = true, h
			s.count(0, 1)
			s.wait.Go(func() { s.decode(ctx, o, data) })
			return o, nil
		}
	}
	// No more objects are read than are analysed at once: they would wait in
	// memory.
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	scratch := s.scratch()
	file, err := s.parse(ctx, e.Path, scratch)
	if err != nil {
		s.slots.Release(1)
		return nil, err
	}
	o.Header = facts.Header{
		Machine: file.Machine, Class: file.Class, Interp: file.Interp, Soname: file.Soname, RPath: file.RPath,
		RunPath: file.RunPath, Needed: file.Needed, NoDefLib: file.Flags1&facts.FlagNoDefLib != 0,
	}
	s.count(0, 1)
	s.wait.Go(func() { s.extract(ctx, o, file, scratch) })
	return o, nil
}

func (s *Set) object(e rootfs.Entry, sum string) *Object {
	return &Object{Path: e.Path, SHA256: sum, Size: e.Size, set: s, done: make(chan struct{})}
}

// remembered returns the object whose content has a digest when its facts are in
// memory, nil otherwise.
func (s *Set) remembered(e rootfs.Entry, sum string) *Object {
	k := s.memory.get(sum)
	if k == nil {
		return nil
	}
	o := s.object(e, sum)
	o.Cached, o.Header, o.known = true, k.header, k
	close(o.done)
	s.count(1, 1)
	return o
}

// magic fails early for what isn't an ELF file, so that nothing large is read.
func (s *Set) magic(ctx context.Context, path string) error {
	f, err := s.root.Open(ctx, path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	var head [4]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if !object.IsELF(head[:]) {
		return fmt.Errorf("load %s: %w", path, object.ErrNotELF)
	}
	return nil
}

// extract finds the facts of an object, in memory that it then leaves to the
// next one, and releases its slot.
func (s *Set) extract(ctx context.Context, o *Object, file *object.File, scratch *facts.Scratch) {
	defer close(o.done)
	defer s.count(1, 0)
	defer s.slots.Release(1)
	defer contain(o.Path, &o.err)
	code, err := facts.BuildIn(ctx, file, scratch)
	if err != nil {
		o.err = fmt.Errorf("analyse %s: %w", o.Path, err)
		return
	}
	o.known = &known{sum: o.SHA256, facts: code.Facts, header: o.Header}
	o.answerAll(code)
	if s.cache != nil {
		// An answer that can't be kept is an answer all the same.
		_ = s.cache.Put(ctx, key(o.SHA256), facts.Encode(code.Facts))
	}
	scratch.Release(code)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, scratch)
}

// scratch returns memory for one object: what another one has left, if there is
// some.
func (s *Set) scratch() *facts.Scratch {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.free)
	if n == 0 {
		return &facts.Scratch{}
	}
	last := s.free[n-1]
	s.free = s.free[:n-1]
	return last
}

// cached returns the encoded facts of an object, nil when there are none.
func (s *Set) cached(ctx context.Context, sum string) []byte {
	if s.cache == nil {
		return nil
	}
	data, err := s.cache.Get(ctx, key(sum))
	if err != nil {
		return nil
	}
	return data
}

// decode reads facts that were cached; they are found anew when they turn out
// to be corrupt.
func (s *Set) decode(ctx context.Context, o *Object, data []byte) {
	f, err := decode(data)
	if err == nil {
		o.known = &known{sum: o.SHA256, facts: f, header: o.Header}
		s.memory.put(o.known)
		close(o.done)
		s.count(1, 0)
		return
	}
	if err = s.slots.Acquire(ctx, 1); err == nil {
		var file *object.File
		scratch := s.scratch()
		if file, err = s.parse(ctx, o.Path, scratch); err == nil {
			s.extract(ctx, o, file, scratch)
			return
		}
		s.slots.Release(1)
	}
	o.err = err
	close(o.done)
	s.count(1, 0)
}

// decode takes what can't be decoded for corrupt, whatever is wrong with it.
func decode(data []byte) (f *facts.Facts, err error) {
	defer contain("what is kept", &err)
	return facts.Decode(data)
}

// contain turns a panic over one object into an error, so that the others, and
// whoever asked, go on.
func contain(path string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("analyse %s: %w (%v)", path, ErrGaveUp, p)
	}
}

func key(sum string) string { return fmt.Sprintf("%s.f%d", sum, facts.Version) }

// parse reads an object into memory of scratch.
func (s *Set) parse(ctx context.Context, path string, scratch *facts.Scratch) (*object.File, error) {
	f, err := s.root.Open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	if f.Size() > object.MaxSize {
		return nil, fmt.Errorf("read %s: %w: %d bytes, the limit is %d", path, object.ErrTooLarge, f.Size(), object.MaxSize)
	}
	data := scratch.Data(int(f.Size()))
	if n, err := f.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(data)) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	file, err := object.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return file, nil
}

func (s *Set) count(done, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done += done
	s.total += total
	if s.progress != nil {
		s.progress(s.done, s.total)
	}
}
