package link

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/confinehq/confine/pkg/rootfs"
)

// Limits on the loader's configuration.
const (
	maxConfig   = 16 << 20 // bytes of one file
	maxIncludes = 64       // files that ld.so.conf includes
)

// System is the loader's configuration in a root. It is safe for concurrent
// use.
type System struct {
	root rootfs.Root

	mu       sync.Mutex
	cache    map[string][]string // key: library name; nil until read
	confDirs []string            // nil until read
	names    map[string][]string // sorted names in a folder; key: the folder, by every path that it was asked for
	pre      *string
	musl     map[string]string // key: the loader's path
}

// NewSystem returns the configuration of a root, which is read when needed.
func NewSystem(root rootfs.Root) *System {
	return &System{root: root, names: map[string][]string{}, musl: map[string]string{}}
}

// Read returns a small file's content, nil when it can't be read.
func (s *System) Read(ctx context.Context, p string) []byte {
	f, err := s.root.Open(ctx, p)
	if err != nil {
		return nil
	}
	defer f.Close()
	if f.Size() > maxConfig {
		return nil
	}
	b := make([]byte, f.Size())
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return b[:n]
}

// defaultDirs are the folders that distributions build into glibc's loader,
// besides the ones in its cache: multiarch (Debian), lib64 (the psABI), lib.
func defaultDirs(m elf.Machine) []string {
	triplet := platform(m) + "-linux-gnu"
	if m == elf.EM_386 {
		return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib32", "/usr/lib32", "/lib", "/usr/lib"}
	}
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}

// platform is the loader's name for a machine ($PLATFORM of ld.so(8)).
func platform(m elf.Machine) string {
	switch m {
	case elf.EM_AARCH64:
		return "aarch64"
	case elf.EM_386:
		return "i386"
	}
	return "x86_64"
}

// capsNames are the folders for certain processors, best first; arm64 has none.
var capsNames = []string{"x86-64-v4", "x86-64-v3", "x86-64-v2"}

// oldCaps are those of loaders for i386 before glibc 2.37, first the folder that
// the others lie in.
var oldCaps = [][]string{{"i686", "/cmov", "/sse2", "/nosegneg", ""}, {"sse2", ""}, {"tls", "/i686", ""}}

// has reports whether a folder holds a name.
func (s *System) has(ctx context.Context, dir, name string) bool {
	_, ok := slices.BinarySearch(s.list(ctx, dir), name)
	return ok
}

// list returns the sorted names in a folder, which is read once: several paths
// often lead to one.
func (s *System) list(ctx context.Context, dir string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list, ok := s.names[dir]; ok {
		return list
	}
	at := dir
	if e, err := s.root.Lookup(ctx, dir); err == nil {
		at = e.Path
	}
	list, ok := s.names[at]
	if !ok {
		list, _ = s.root.ReadDir(ctx, at)
		s.names[at] = list
	}
	s.names[dir] = list
	return list
}

// inDir lists the paths of a name in a folder, its variants for certain
// processors first.
func (s *System) inDir(ctx context.Context, dir, name string) []string {
	var out []string
	if s.has(ctx, dir, "glibc-hwcaps") {
		for _, c := range capsNames {
			if d := dir + "/glibc-hwcaps/" + c; s.has(ctx, d, name) {
				out = append(out, d+"/"+name)
			}
		}
	}
	for _, caps := range oldCaps {
		for _, sub := range caps[1:] {
			if d := dir + "/" + caps[0] + sub; s.has(ctx, dir, caps[0]) && s.has(ctx, d, name) {
				out = append(out, d+"/"+name)
			}
		}
	}
	if s.has(ctx, dir, name) {
		out = append(out, dir+"/"+name)
	}
	return out
}

// Dir lists the names in a folder that begin with a prefix.
func (s *System) Dir(ctx context.Context, dir, prefix string) []string {
	var out []string
	for _, n := range s.list(ctx, dir) {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out
}

func (s *System) preload(ctx context.Context) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pre == nil {
		v := string(s.Read(ctx, "/etc/ld.so.preload"))
		s.pre = &v
	}
	return *s.pre
}

// muslPath is the search path of musl's loader: /etc/ld-musl-ARCH.path, or its
// default.
func (s *System) muslPath(ctx context.Context, interp string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.musl[interp]
	if !ok {
		name := strings.TrimSuffix(path.Base(interp), ".so.1")
		v = strings.ReplaceAll(strings.TrimSpace(string(s.Read(ctx, "/etc/"+name+".path"))), "\n", ":")
		if v == "" {
			v = "/lib:/usr/local/lib:/usr/lib"
		}
		s.musl[interp] = v
	}
	return v
}

// cached returns the paths of a name in the loader's cache.
func (s *System) cached(ctx context.Context, name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil {
		s.cache = ParseCache(s.Read(ctx, "/etc/ld.so.cache"))
	}
	return s.cache[name]
}

// dirs returns the folders of ld.so.conf, then the default ones.
func (s *System) dirs(ctx context.Context, m elf.Machine) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.confDirs == nil {
		s.confDirs = []string{}
		n := 0
		s.conf(ctx, "/etc/ld.so.conf", &n)
	}
	return append(slices.Clone(s.confDirs), defaultDirs(m)...)
}

func (s *System) conf(ctx context.Context, p string, n *int) {
	if *n++; *n > maxIncludes {
		return
	}
	for line := range strings.Lines(string(s.Read(ctx, p))) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == "hwcap":
		case fields[0] == "include":
			for _, pattern := range fields[1:] {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(p), pattern)
				}
				names, _ := s.root.ReadDir(ctx, path.Dir(pattern))
				for _, name := range names {
					if ok, _ := path.Match(path.Base(pattern), name); ok {
						s.conf(ctx, path.Join(path.Dir(pattern), name), n)
					}
				}
			}
		default:
			for _, d := range fields {
				d, _, _ = strings.Cut(d, "=")
				if path.IsAbs(d) {
					s.confDirs = append(s.confDirs, strings.TrimRight(d, "/"))
				}
			}
		}
	}
}

// ParseCache reads /etc/ld.so.cache; key: library name. Anything that isn't
// one gives an empty map.
func ParseCache(b []byte) map[string][]string {
	const (
		oldMagic = "ld.so-1.7.0"
		magic    = "glibc-ld.so.cache1.1"
		header   = 48
		size     = 24
	)
	out := map[string][]string{}
	if bytes.HasPrefix(b, []byte(oldMagic)) && len(b) >= 16 {
		// The old table stands before the new one, which begins at a multiple
		// of 8.
		n := uint64(binary.LittleEndian.Uint32(b[12:]))
		skip := (16 + n*12 + 7) &^ 7
		if skip > uint64(len(b)) {
			return out
		}
		b = b[skip:]
	}
	if !bytes.HasPrefix(b, []byte(magic)) || len(b) < header {
		return out
	}
	n := uint64(binary.LittleEndian.Uint32(b[20:]))
	if n > uint64(len(b)-header)/size {
		return out
	}
	str := func(off uint32) string {
		if uint64(off) >= uint64(len(b)) {
			return ""
		}
		s := b[off:]
		if i := bytes.IndexByte(s[:min(len(s), 4096)], 0); i >= 0 {
			return string(s[:i])
		}
		return ""
	}
	for i := range n {
		e := b[header+i*size:]
		k, v := str(binary.LittleEndian.Uint32(e[4:])), str(binary.LittleEndian.Uint32(e[8:]))
		if k != "" && path.IsAbs(v) {
			out[k] = append(out[k], v)
		}
	}
	return out
}
