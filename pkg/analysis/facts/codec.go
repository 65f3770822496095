package facts

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrCorrupt is what Decode returns for anything that Encode didn't write.
var ErrCorrupt = errors.New("corrupt facts")

// Encode writes facts as a compact string of variable-length integers.
// Lists that are sorted by construction are written as differences.
func Encode(f *Facts) []byte {
	var w writer
	w.uint(Version)
	w.uint(uint64(f.Machine))
	w.uint(uint64(f.Class))
	w.uint(uint64(f.Size))
	w.strings(f.Interp, f.Soname, f.RPath, f.RunPath)
	w.list(f.Needed)
	w.bools(f.NoDefLib, f.Go, f.IsPIE)
	w.list(f.Warnings)
	w.list(f.Strings)
	w.uint(uint64(f.Entry))
	w.deltas(f.Roots)
	w.deltas(f.RootImports)
	w.deltas(f.RootRegions)
	w.uint(uint64(len(f.Imports)))
	for i := range f.Imports {
		m := &f.Imports[i]
		w.strings(m.Name, m.Version)
		w.bools(m.Weak, m.Own, m.Copy)
		w.uint(uint64(m.OwnFunc))
		w.uint(uint64(m.OwnRegion))
	}
	w.uint(uint64(len(f.Exports)))
	for i := range f.Exports {
		e := &f.Exports[i]
		w.strings(e.Name, e.Version)
		w.bools(e.Hidden, e.IFunc)
		w.uint(uint64(e.Func))
		w.uint(uint64(e.Region))
	}
	w.uint(uint64(len(f.Regions)))
	for i := range f.Regions {
		r := &f.Regions[i]
		w.strings(r.Name)
		w.uint(r.Start)
		w.uint(r.End - r.Start)
		w.deltas(r.Funcs)
		w.deltas(r.Imports)
		w.deltas(r.Regions)
		w.deltas(r.Strings)
	}
	w.uint(uint64(len(f.Funcs)))
	last := uint64(0)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		w.uint(fn.Start - last)
		w.uint(fn.End - fn.Start)
		last = fn.Start
		w.function(fn)
	}
	w.uint(uint64(len(f.Symbols)))
	for _, i := range slices.Sorted(maps.Keys(f.Symbols)) {
		w.uint(uint64(i))
		w.strings(f.Symbols[i])
	}
	return w.b
}

type writer struct {
	b []byte
	// seen numbers the strings that were written; key: the string.
	seen map[string]uint64
}

func (w *writer) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)   { w.b = binary.AppendVarint(w.b, v) }

// strings writes each string once, and a number from then on.
func (w *writer) strings(list ...string) {
	if w.seen == nil {
		w.seen = map[string]uint64{}
	}
	for _, s := range list {
		if n, ok := w.seen[s]; ok {
			w.uint(n)
			continue
		}
		w.uint(0)
		w.uint(uint64(len(s)))
		w.b = append(w.b, s...)
		w.seen[s] = uint64(len(w.seen)) + 1
	}
}

func (w *writer) list(s []string) {
	w.uint(uint64(len(s)))
	w.strings(s...)
}

func (w *writer) bools(v ...bool) {
	n := uint64(0)
	for i, b := range v {
		if b {
			n |= 1 << i
		}
	}
	w.uint(n)
}

func (w *writer) deltas(v []uint32) {
	w.uint(uint64(len(v)))
	last := uint32(0)
	for _, x := range v {
		w.int(int64(x) - int64(last))
		last = x
	}
}

func (w *writer) function(fn *Func) {
	w.bools(fn.ComputedJump, len(fn.Edges) > 0, len(fn.Imports) > 0, len(fn.Regions) > 0, len(fn.Strings) > 0, len(fn.Sites) > 0)
	if len(fn.Edges) > 0 {
		w.uint(uint64(len(fn.Edges)))
		last := uint32(0)
		for _, e := range fn.Edges {
			w.int(int64(e.To) - int64(last))
			w.uint(uint64(e.Kind))
			last = e.To
		}
	}
	if len(fn.Imports) > 0 {
		w.uint(uint64(len(fn.Imports)))
		for _, i := range fn.Imports {
			v := uint64(i.Import) << 1
			if i.Called {
				v |= 1
			}
			w.uint(v)
		}
	}
	if len(fn.Regions) > 0 {
		w.deltas(fn.Regions)
	}
	if len(fn.Strings) > 0 {
		w.deltas(fn.Strings)
	}
	if len(fn.Sites) > 0 {
		w.sites(fn.Sites, fn.Start)
	}
}

func (w *writer) sites(list []Site, base uint64) {
	w.uint(uint64(len(list)))
	for i := range list {
		s := &list[i]
		w.int(int64(s.Addr - base))
		w.uint(uint64(s.Kind))
		w.uint(uint64(len(s.Nrs)))
		for _, n := range s.Nrs {
			w.int(int64(n))
		}
		w.uint(uint64(len(s.Params)))
		for _, p := range s.Params {
			w.uint(uint64(p))
		}
		w.bools(s.Derefs, s.Called)
		w.strings(s.Unresolved)
		w.uint(uint64(s.Via))
	}
}

// EncodeSites writes the sites of some functions; key: function index.
func EncodeSites(m map[uint32][]Site) []byte {
	var w writer
	w.uint(Version)
	w.uint(uint64(len(m)))
	for _, i := range slices.Sorted(maps.Keys(m)) {
		w.uint(uint64(i))
		w.sites(m[i], 0)
	}
	return w.b
}

// DecodeSites reads what EncodeSites wrote.
func DecodeSites(data []byte) (map[uint32][]Site, error) {
	r := reader{b: data}
	if v := r.uint(); v != Version {
		return nil, fmt.Errorf("%w: version %d", ErrCorrupt, v)
	}
	m := map[uint32][]Site{}
	for range r.count(2) {
		i := uint32(r.uint())
		m[i] = r.sites(0)
	}
	return m, r.end()
}

// Decode reads what Encode wrote; ErrCorrupt for anything else. What it
// returns is consistent: every index points into its list.
func Decode(data []byte) (*Facts, error) {
	r := reader{b: data}
	if v := r.uint(); v != Version {
		return nil, fmt.Errorf("%w: version %d", ErrCorrupt, v)
	}
	f := &Facts{Machine: elf.Machine(r.uint()), Class: elf.Class(r.uint()), Size: int64(r.uint())}
	f.Interp, f.Soname, f.RPath, f.RunPath = r.string(), r.string(), r.string(), r.string()
	f.Needed = r.list()
	b := r.uint()
	f.NoDefLib, f.Go, f.IsPIE = b&1 != 0, b&2 != 0, b&4 != 0
	f.Warnings, f.Strings = r.list(), r.list()
	f.Entry = uint32(r.uint())
	f.Roots, f.RootImports, f.RootRegions = r.deltas(), r.deltas(), r.deltas()
	f.Imports = make([]Import, r.count(5))
	for i := range f.Imports {
		m := &f.Imports[i]
		m.Name, m.Version = r.string(), r.string()
		b := r.uint()
		m.Weak, m.Own, m.Copy = b&1 != 0, b&2 != 0, b&4 != 0
		m.OwnFunc, m.OwnRegion = uint32(r.uint()), uint32(r.uint())
	}
	f.Exports = make([]Export, r.count(5))
	for i := range f.Exports {
		e := &f.Exports[i]
		e.Name, e.Version = r.string(), r.string()
		b := r.uint()
		e.Hidden, e.IFunc = b&1 != 0, b&2 != 0
		e.Func, e.Region = uint32(r.uint()), uint32(r.uint())
	}
	f.Regions = make([]Region, r.count(7))
	for i := range f.Regions {
		g := &f.Regions[i]
		g.Name, g.Start = r.string(), r.uint()
		g.End = g.Start + r.uint()
		g.Funcs, g.Imports, g.Regions, g.Strings = r.deltas(), r.deltas(), r.deltas(), r.deltas()
	}
	f.Funcs = make([]Func, r.count(3))
	last := uint64(0)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		fn.Start = last + r.uint()
		fn.End = fn.Start + r.uint()
		last = fn.Start
		r.function(fn)
	}
	f.Symbols = map[uint32]string{}
	for range r.count(2) {
		i := uint32(r.uint())
		f.Symbols[i] = r.string()
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return f, f.check()
}

type reader struct {
	b    []byte
	bad  bool
	seen []string
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return ErrCorrupt
	}
	return nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a length of things that take at least size bytes each, so that
// no input asks for more memory than it is long.
func (r *reader) count(size int) int {
	v := r.uint()
	if v > uint64(len(r.b)/size) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(v)
}

func (r *reader) string() string {
	n := r.uint()
	if n > 0 {
		if n > uint64(len(r.seen)) {
			r.bad, r.b = true, nil
			return ""
		}
		return r.seen[n-1]
	}
	l := r.count(1)
	s := string(r.b[:l])
	r.b = r.b[l:]
	r.seen = append(r.seen, s)
	return s
}

func (r *reader) list() []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := make([]string, n)
	for i := range out {
		out[i] = r.string()
	}
	return out
}

func (r *reader) deltas() []uint32 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := make([]uint32, n)
	last := int64(0)
	for i := range out {
		last += r.int()
		out[i] = uint32(last)
	}
	return out
}

func (r *reader) function(fn *Func) {
	b := r.uint()
	fn.ComputedJump = b&1 != 0
	if b&2 != 0 {
		fn.Edges = make([]Edge, r.count(2))
		last := int64(0)
		for i := range fn.Edges {
			last += r.int()
			fn.Edges[i] = Edge{uint32(last), EdgeKind(r.uint())}
		}
	}
	if b&4 != 0 {
		fn.Imports = make([]ImportUse, r.count(1))
		for i := range fn.Imports {
			v := r.uint()
			fn.Imports[i] = ImportUse{uint32(v >> 1), v&1 != 0}
		}
	}
	if b&8 != 0 {
		fn.Regions = r.deltas()
	}
	if b&16 != 0 {
		fn.Strings = r.deltas()
	}
	if b&32 != 0 {
		fn.Sites = r.sites(fn.Start)
	}
}

func (r *reader) sites(base uint64) []Site {
	out := make([]Site, r.count(6))
	for i := range out {
		s := &out[i]
		s.Addr, s.Kind = base+uint64(r.int()), SiteKind(r.uint())
		if n := r.count(1); n > 0 {
			s.Nrs = make([]int32, n)
			for j := range s.Nrs {
				s.Nrs[j] = int32(r.int())
			}
		}
		if n := r.count(1); n > 0 {
			s.Params = make([]Loc, n)
			for j := range s.Params {
				s.Params[j] = Loc(r.uint())
			}
		}
		b := r.uint()
		s.Derefs, s.Called = b&1 != 0, b&2 != 0
		s.Unresolved, s.Via = r.string(), uint32(r.uint())
	}
	return out
}

// check reports whether every index of facts that were read points into its
// list.
func (f *Facts) check() error {
	ok := int(f.Entry) <= len(f.Funcs)
	in := func(list []uint32, n int) {
		for _, i := range list {
			ok = ok && int(i) < n
		}
	}
	in(f.Roots, len(f.Funcs))
	in(f.RootImports, len(f.Imports))
	in(f.RootRegions, len(f.Regions))
	for i := range f.Imports {
		ok = ok && int(f.Imports[i].OwnFunc) <= len(f.Funcs) && int(f.Imports[i].OwnRegion) <= len(f.Regions)
	}
	for i := range f.Exports {
		ok = ok && int(f.Exports[i].Func) <= len(f.Funcs) && int(f.Exports[i].Region) <= len(f.Regions)
	}
	for i := range f.Regions {
		r := &f.Regions[i]
		in(r.Funcs, len(f.Funcs))
		in(r.Imports, len(f.Imports))
		in(r.Regions, len(f.Regions))
		in(r.Strings, len(f.Strings))
	}
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		for _, e := range fn.Edges {
			ok = ok && int(e.To) < len(f.Funcs)
		}
		for _, m := range fn.Imports {
			ok = ok && int(m.Import) < len(f.Imports)
		}
		in(fn.Regions, len(f.Regions))
		in(fn.Strings, len(f.Strings))
	}
	if !ok {
		return ErrCorrupt
	}
	return nil
}
