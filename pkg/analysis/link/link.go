// Package link finds the objects that a program loads, as its own loader
// would: the interpreter, DT_NEEDED with RPATH, RUNPATH and LD_LIBRARY_PATH,
// the loader's cache and configuration inside the image, and preloaded
// libraries. It also binds symbols with their versions.
//
// Sources: ld.so(8), glibc's elf/dl-load.c and elf/cache.c for the order of
// the search and the format of the cache, musl's ldso/dynlink.c for its rules,
// the gABI chapter 5 for symbol look-up.
//
// Where the loader would choose by the processor (glibc-hwcaps folders), all
// choices are taken: the profile has to hold on any machine.
package link

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/rootfs"
)

// maxMembers bounds the objects of one closure.
const maxMembers = 4096

// Member is one object of a closure.
type Member struct {
	Object *objects.Object
	// Loader is the member that asked for it, nil for the program, its
	// interpreter and preloaded objects.
	Loader *Member
	// Alternates are what another processor would load in its place.
	Alternates []*Member
}

// Missing is a library that isn't there.
type Missing struct{ Name, By string }

// Linker finds objects for one program.
type Linker struct {
	set  *objects.Set
	root rootfs.Root
	sys  *System
	env  map[string]string

	program *objects.Object
	main    *Member
	// Interp is nil for a static program.
	Interp *Member
	// Missing lists needed libraries that were not found.
	Missing []Missing
	// Unreadable lists objects that could not be read; key: path.
	Unreadable map[string]error

	starting bool               // Startup is under way
	byPath   map[string]*Member // key: canonical path
	byName   map[string]*Member // key: the name that was asked for; DT_SONAME
	order    []*Member
}

// New returns the linker of a program. sys is shared by all programs of a
// root; env holds KEY=VALUE.
func New(set *objects.Set, root rootfs.Root, sys *System, program *objects.Object, env []string) *Linker {
	l := &Linker{
		set: set, root: root, sys: sys, env: map[string]string{}, program: program,
		Unreadable: map[string]error{}, byPath: map[string]*Member{}, byName: map[string]*Member{},
	}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			l.env[k] = v
		}
	}
	return l
}

// Members returns all members in the order of the loader's global look-up:
// the program, preloaded objects, then breadth first.
func (l *Linker) Members() []*Member { return l.order }

// Startup loads what the program has when it starts.
func (l *Linker) Startup(ctx context.Context) error {
	l.starting = true
	defer func() { l.starting = false }()
	l.main = &Member{Object: l.program}
	l.add(l.main, l.program.Header.Soname)
	if l.program.Header.Interp == "" {
		return ctx.Err()
	}
	interp, err := l.load(ctx, l.program.Header.Interp)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.Missing = append(l.Missing, Missing{l.program.Header.Interp, l.program.Path})
	case err != nil:
		l.Unreadable[l.program.Header.Interp] = err
	default:
		l.Interp = &Member{Object: interp}
	}
	var preload []string
	for _, list := range []string{l.env["LD_PRELOAD"], l.sys.preload(ctx)} {
		preload = append(preload, strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ' ' || r == '\n' || r == '\t' })...)
	}
	from := 0
	for _, name := range preload {
		l.need(ctx, name, nil)
	}
	return l.breadthFirst(ctx, from)
}

// Load adds an object that is opened at run time, by its path or by a name
// that is searched for, with all that it needs. It returns nil when there is
// nothing of that name, or when it is there already.
func (l *Linker) Load(ctx context.Context, name string, by *Member) (*Member, error) {
	from := len(l.order)
	m := l.find(ctx, name, by)
	if m == nil || slices.Contains(l.order[:from], m) {
		return m, ctx.Err()
	}
	return m, l.breadthFirst(ctx, from)
}

// Path returns the path that a name would be loaded from, "" when there is
// none or when it is a member already.
func (l *Linker) Path(ctx context.Context, name string, by *Member) string {
	if l.byName[name] != nil {
		return ""
	}
	for p := range l.candidates(ctx, name, by) {
		if e, err := l.root.Lookup(ctx, p); err == nil && e.Kind == rootfs.KindFile {
			if l.byPath[e.Path] != nil {
				return ""
			}
			return e.Path
		}
	}
	return ""
}

func (l *Linker) breadthFirst(ctx context.Context, from int) error {
	for i := from; i < len(l.order); i++ {
		m := l.order[i]
		for _, name := range m.Object.Header.Needed {
			l.need(ctx, name, m)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if l.Interp != nil && l.byPath[l.Interp.Object.Path] == nil {
		l.add(l.Interp, l.Interp.Object.Header.Soname)
	}
	return nil
}

func (l *Linker) need(ctx context.Context, name string, by *Member) {
	if l.find(ctx, name, by) == nil {
		who := l.program.Path
		if by != nil {
			who = by.Object.Path
		}
		if m := (Missing{name, who}); !slices.Contains(l.Missing, m) {
			l.Missing = append(l.Missing, m)
		}
	}
}

func (l *Linker) add(m *Member, names ...string) {
	l.byPath[m.Object.Path] = m
	for _, n := range names {
		if n != "" && l.byName[n] == nil {
			l.byName[n] = m
		}
	}
	l.order = append(l.order, m)
}

// muslNames are libraries that musl's loader holds itself (ldso/dynlink.c,
// load_library).
var muslNames = []string{"libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."}

func (l *Linker) musl() bool {
	return l.Interp != nil && strings.HasPrefix(path.Base(l.program.Header.Interp), "ld-musl-")
}

// find returns the member of a name, which it loads when it isn't there yet;
// nil when there is none.
func (l *Linker) find(ctx context.Context, name string, by *Member) *Member {
	if m := l.byName[name]; m != nil {
		return m
	}
	if len(l.order) >= maxMembers {
		return nil
	}
	if l.musl() && slices.ContainsFunc(muslNames, func(p string) bool { return strings.HasPrefix(name, p) }) && strings.Contains(name, ".so") {
		return l.Interp
	}
	var found *Member
	for p := range l.candidates(ctx, name, by) {
		o, err := l.load(ctx, p)
		if err != nil {
			// A name that code holds need not be a library's.
			if !errors.Is(err, fs.ErrNotExist) && (l.starting || !errors.Is(err, object.ErrNotELF) && !errors.Is(err, rootfs.ErrNotRegular)) {
				l.Unreadable[p] = err
			}
			continue
		}
		if o.Header.Machine != l.program.Header.Machine || o.Header.Class != l.program.Header.Class {
			continue
		}
		m := l.byPath[o.Path]
		if m == nil {
			m = &Member{Object: o, Loader: by}
			switch {
			case found != nil:
				l.add(m)
			case l.Interp != nil && l.Interp.Object.Path == o.Path:
				m = l.Interp
				l.add(m, name, o.Header.Soname)
			default:
				l.add(m, name, o.Header.Soname)
			}
		}
		if l.byName[name] == nil {
			l.byName[name] = m
		}
		if !capsDir(p) {
			if found == nil {
				return m
			}
			if m != found {
				found.Alternates = append(found.Alternates, m)
			}
			return found
		}
		if found == nil {
			found = m
		} else if m != found {
			found.Alternates = append(found.Alternates, m)
		}
	}
	return found
}

func (l *Linker) load(ctx context.Context, p string) (*objects.Object, error) {
	return l.set.Load(ctx, p)
}

// candidates lists the paths that a name may stand for, in the loader's order.
// Folders are read when the ones before them didn't have it.
func (l *Linker) candidates(ctx context.Context, name string, by *Member) iter.Seq[string] {
	return func(yield func(string) bool) {
		if strings.Contains(name, "/") {
			if by != nil {
				name = l.expand(name, by)
			}
			if path.IsAbs(name) { // else it is relative to the working folder
				yield(name)
			}
			return
		}
		each := func(list []string) bool {
			for _, p := range list {
				if !yield(p) {
					return false
				}
			}
			return true
		}
		l.search(ctx, name, by, each)
	}
}

// search hands the paths of a name to each, until it has seen enough.
func (l *Linker) search(ctx context.Context, name string, by *Member, each func([]string) bool) {
	dirs := func(list string, of *Member) bool {
		for d := range strings.SplitSeq(list, ":") {
			if of != nil {
				d = l.expand(d, of)
			}
			if d != "" && path.IsAbs(d) && !each(l.sys.inDir(ctx, d, name)) {
				return false
			}
		}
		return true
	}
	if by == nil || by.Object.Header.RunPath == "" || l.musl() {
		for m := by; m != nil; m = m.Loader {
			list := ""
			if m.Object.Header.RunPath == "" {
				list = m.Object.Header.RPath
			} else if l.musl() {
				list = m.Object.Header.RunPath
			}
			if !dirs(list, m) {
				return
			}
		}
		if l.main != nil && l.main.Object.Header.RunPath == "" && !dirs(l.main.Object.Header.RPath, l.main) {
			return
		}
	}
	if !dirs(strings.ReplaceAll(l.env["LD_LIBRARY_PATH"], ";", ":"), nil) || by != nil && !dirs(by.Object.Header.RunPath, by) {
		return
	}
	if l.musl() {
		dirs(l.sys.muslPath(ctx, l.program.Header.Interp), nil)
		return
	}
	if by != nil && by.Object.Header.NoDefLib || !each(l.sys.cached(ctx, name)) {
		return
	}
	for _, d := range l.sys.dirs(ctx, l.program.Header.Machine) {
		if !each(l.sys.inDir(ctx, d, name)) {
			return
		}
	}
}

// expand replaces the dynamic string tokens (ld.so(8)). $LIB and $PLATFORM
// depend on how the loader was built; the usual values of both are tried by
// the folders' own look-ups.
func (l *Linker) expand(s string, m *Member) string {
	if !strings.Contains(s, "$") {
		return s
	}
	origin := path.Dir(m.Object.Path)
	machine := platform(l.program.Header.Machine)
	lib := "lib/" + machine + "-linux-gnu"
	r := strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin,
		"${LIB}", lib, "$LIB", lib, "${PLATFORM}", machine, "$PLATFORM", machine)
	return r.Replace(s)
}

// capsDir reports whether a path lies in a folder for certain processors.
func capsDir(p string) bool {
	if strings.Contains(p, "/glibc-hwcaps/") {
		return true
	}
	return slices.ContainsFunc(oldCaps, func(caps []string) bool { return strings.Contains(p, "/"+caps[0]+"/") })
}
