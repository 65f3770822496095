package facts

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// ErrCorrupt is what Decode returns for anything that Encode didn't write.
var ErrCorrupt = errors.New("corrupt facts")

// Encode writes facts as a compact string of variable-length integers.
// Lists that are sorted by construction are written as differences.
func Encode(f *Facts) []byte {
	var w writer
	w.uint(uint64(f.Size))
	w.bools(f.Go, f.IsPIE)
	w.list(f.Warnings)
	w.list(f.Strings)
	w.uint(uint64(f.Entry))
	w.deltas(f.Roots)
	w.deltas(f.Held)
	w.deltas(f.RootImports)
	w.deltas(f.RootRegions)
	w.exports(f.Exports)
	w.imports(f)
	w.in(inRegions).count(len(f.Regions))
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
	w.in(inStarts).count(len(f.Funcs))
	last := uint64(0)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		w.in(inStarts).int(int64(fn.Start - last))
		w.in(inLengths).uint(fn.End - fn.Start)
		last = fn.End
		w.function(fn, i)
	}
	w.in(inSymbols).symbols(f)
	return pack(encodeHeader(f), w.pieces()...)
}

func (w *writer) exports(list []Export) {
	w.in(inNames).count(len(list))
	last := int64(0)
	for i := range list {
		e := &list[i]
		w.in(inNames).string(colName, e.Name)
		w.in(inVersions).string(colVersion, e.Version)
		w.in(inMarks).bools(e.Hidden, e.IFunc, e.Region > 0)
		w.in(inExports).int(int64(e.Func) - last)
		last = int64(e.Func)
		if e.Region > 0 {
			w.uint(uint64(e.Region))
		}
	}
}

func (w *writer) imports(f *Facts) {
	own := f.ownFuncs()
	w.in(inNames).count(len(f.Imports))
	for i := range f.Imports {
		m := &f.Imports[i]
		w.in(inNames).string(colName, m.Name)
		w.in(inVersions).string(colVersion, m.Version)
		usual := m.OwnFunc == own[m.Name]
		w.in(inMarks).bools(m.Weak, m.Own, m.Copy, m.OwnRegion > 0, usual, len(m.Args) > 0)
		w.in(inImports)
		if !usual {
			w.uint(uint64(m.OwnFunc))
		}
		if m.OwnRegion > 0 {
			w.uint(uint64(m.OwnRegion))
		}
		if len(m.Args) > 0 {
			w.args(m.Args)
		}
	}
}

// Header is what the loader needs to know of an object.
type Header struct {
	Machine                        elf.Machine
	Class                          elf.Class
	Interp, Soname, RPath, RunPath string
	Needed                         []string
	NoDefLib                       bool
}

func encodeHeader(f *Facts) []byte {
	var w writer
	w.uint(uint64(f.Machine))
	w.uint(uint64(f.Class))
	w.strings(f.Interp, f.Soname, f.RPath, f.RunPath)
	w.list(f.Needed)
	w.bools(f.NoDefLib)
	return w.plain()
}

// DecodeHeader reads the header alone of what Encode wrote; ErrCorrupt for
// anything else.
func DecodeHeader(data []byte) (Header, error) {
	head, _, err := parts(data)
	if err != nil {
		return Header{}, err
	}
	r, err := newReader(head)
	if err != nil {
		return Header{}, err
	}
	h := Header{Machine: elf.Machine(r.uint()), Class: elf.Class(r.uint())}
	h.Interp, h.Soname, h.RPath, h.RunPath = r.string(colOther), r.string(colOther), r.string(colOther), r.string(colOther)
	h.Needed = r.list()
	h.NoDefLib = r.uint() != 0
	return h, r.end()
}

// ownFuncs maps the names of exports to their functions (index+1).
func (f *Facts) ownFuncs() map[string]uint32 {
	m := map[string]uint32{}
	for i := range f.Exports {
		if e := &f.Exports[i]; e.Func > 0 {
			m[e.Name] = e.Func
		}
	}
	return m
}

// exportNames names functions by the exports that they are.
func (f *Facts) exportNames() map[uint32]string {
	m := map[uint32]string{}
	for i := range f.Exports {
		e := &f.Exports[i]
		if old, ok := m[e.Func-1]; e.Func > 0 && (!ok || better(e.Name, old)) {
			m[e.Func-1] = e.Name
		}
	}
	return m
}

// symbols writes the names that functions have beside those of their exports.
func (w *writer) symbols(f *Facts) {
	names := f.exportNames()
	var other []uint32
	for i, s := range f.Symbols {
		if n, ok := names[i]; !ok || n != s {
			other = append(other, i)
		}
	}
	for i := range names {
		if _, ok := f.Symbols[i]; !ok {
			other = append(other, i)
		}
	}
	slices.Sort(other)
	w.deltas(other)
	for _, i := range other {
		s, ok := f.Symbols[i]
		w.bools(ok)
		w.string(colName, s)
	}
}

func (r *reader) symbols(f *Facts) {
	f.Symbols = f.exportNames()
	for _, i := range r.deltas() {
		ok, s := r.uint(), r.string(colName)
		if ok&1 != 0 {
			f.Symbols[i] = s
		} else {
			delete(f.Symbols, i)
		}
	}
}

// Strings of one column tend to follow each other in the table.
const (
	colOther = iota
	colName
	colVersion
	columns
)

// Streams of a body: values of one kind stand together, because they tell what
// follows them better than others do. Each is followed by one of the lengths of
// the lists in it.
const (
	inGeneral = 2 * iota
	inNames
	inVersions
	inMarks
	inExports
	inImports
	inRegions
	inStarts
	inLengths
	inHas
	inEdges
	inKinds
	inUses
	inCalled
	inUsedRegions
	inUsedStrings
	inSites
	inSymbols
	streams
)

// writer collects the streams of a body and, apart, a table of the strings in
// it: each stands there once, in the order of their first use, as the bytes that
// it shares with the one before and the rest of it.
type writer struct {
	streams [streams][]byte
	at      int // the stream that is written to
	table   []byte
	total   uint64 // bytes of all strings in the table
	last    string
	// seen numbers the strings that were written; key: the string.
	seen map[string]uint64
	next [columns]uint64
}

// in has what follows written to a stream.
func (w *writer) in(stream int) *writer {
	w.at = stream
	return w
}

// pieces returns everything that was written: how long each stream is, with its
// number, the table, and the streams.
func (w *writer) pieces() [][]byte {
	head := binary.AppendUvarint(nil, uint64(len(w.seen)))
	head = binary.AppendUvarint(head, w.total)
	head = binary.AppendUvarint(head, uint64(len(w.table)))
	out := [][]byte{nil, w.table}
	for i, b := range w.streams {
		if len(b) > 0 {
			head = binary.AppendUvarint(head, uint64(i)+1)
			head = binary.AppendUvarint(head, uint64(len(b)))
			out = append(out, b)
		}
	}
	out[0] = append(head, 0)
	return out
}

// plain returns all pieces as one.
func (w *writer) plain() []byte { return bytes.Join(w.pieces(), nil) }

func (w *writer) uint(v uint64) { w.streams[w.at] = binary.AppendUvarint(w.streams[w.at], v) }
func (w *writer) int(v int64)   { w.streams[w.at] = binary.AppendVarint(w.streams[w.at], v) }

// count writes how long the list is that follows.
func (w *writer) count(n int) {
	w.streams[w.at+1] = binary.AppendUvarint(w.streams[w.at+1], uint64(n))
}

func (w *writer) strings(list ...string) {
	for _, s := range list {
		w.string(colOther, s)
	}
}

// string writes where a string stands in the table, as the distance from the
// place behind the one before it in its column.
func (w *writer) string(column int, s string) {
	if w.seen == nil {
		w.seen = map[string]uint64{}
	}
	n, ok := w.seen[s]
	if !ok {
		n = uint64(len(w.seen))
		w.seen[s] = n
		w.append(s)
	}
	w.int(int64(n - w.next[column]))
	w.next[column] = n + 1
}

func (w *writer) append(s string) {
	shared := 0
	for shared < min(len(s), len(w.last)) && s[shared] == w.last[shared] {
		shared++
	}
	w.table = binary.AppendUvarint(w.table, uint64(shared))
	w.table = binary.AppendUvarint(w.table, uint64(len(s)-shared))
	w.table = append(w.table, s[shared:]...)
	w.last = s
	w.total += uint64(len(s))
}

func (w *writer) list(s []string) {
	w.count(len(s))
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
	w.count(len(v))
	last := uint32(0)
	for _, x := range v {
		w.int(int64(x) - int64(last))
		last = x
	}
}

// function writes edges as distances from the function's own index.
func (w *writer) function(fn *Func, self int) {
	calls := !slices.ContainsFunc(fn.Edges, func(e Edge) bool { return e.Kind != EdgeCall })
	called := !slices.ContainsFunc(fn.Imports, func(i ImportUse) bool { return !i.Called })
	w.in(inHas).bools(fn.ComputedJump, len(fn.Edges) > 0, len(fn.Imports) > 0, len(fn.Regions) > 0, len(fn.Strings) > 0, len(fn.Sites) > 0, calls, called, len(fn.Passes) > 0, fn.Generic)
	if len(fn.Edges) > 0 {
		w.in(inEdges).count(len(fn.Edges))
		last := int64(self)
		for _, e := range fn.Edges {
			w.in(inEdges).int(int64(e.To) - last)
			if !calls {
				w.in(inKinds).uint(uint64(e.Kind))
			}
			last = int64(e.To)
		}
	}
	if len(fn.Imports) > 0 {
		w.in(inUses).count(len(fn.Imports))
		last := uint32(0)
		for _, i := range fn.Imports {
			w.in(inUses).int(int64(i.Import) - int64(last))
			if !called {
				w.in(inCalled).bools(i.Called)
			}
			last = i.Import
		}
	}
	if len(fn.Regions) > 0 {
		w.in(inUsedRegions).deltas(fn.Regions)
	}
	if len(fn.Strings) > 0 {
		w.in(inUsedStrings).deltas(fn.Strings)
	}
	if len(fn.Sites) > 0 {
		w.in(inSites).sites(fn.Sites, fn.Start)
	}
	if len(fn.Passes) > 0 {
		w.in(inSites).passes(fn.Passes)
	}
}

func (w *writer) sites(list []Site, base uint64) {
	w.count(len(list))
	for i := range list {
		s := &list[i]
		w.int(int64(s.Addr - base))
		w.uint(uint64(s.Kind))
		w.count(len(s.Nrs))
		for _, n := range s.Nrs {
			w.int(int64(n))
		}
		w.count(len(s.Params))
		for _, p := range s.Params {
			w.uint(uint64(p))
		}
		w.bools(s.Derefs, s.Called, len(s.Args) > 0, len(s.Vars) > 0)
		if len(s.Args) > 0 {
			w.args(s.Args)
		}
		if len(s.Vars) > 0 {
			w.deltas(s.Vars)
		}
		w.strings(s.Unresolved)
		w.uint(uint64(s.Via))
	}
}

// EncodeSites writes the sites of some functions; key: function index.
func EncodeSites(m map[uint32][]Site) []byte {
	var w writer
	w.in(inSites).count(len(m))
	for _, i := range slices.Sorted(maps.Keys(m)) {
		w.uint(uint64(i))
		w.sites(m[i], 0)
	}
	return pack(nil, w.pieces()...)
}

// DecodeSites reads what EncodeSites wrote.
func DecodeSites(data []byte) (map[uint32][]Site, error) {
	r, err := unpacked(data)
	if err != nil {
		return nil, err
	}
	m := map[uint32][]Site{}
	for range r.in(inSites).count(1) {
		i := uint32(r.uint())
		m[i] = r.sites(0)
	}
	return m, r.end()
}

// Decode reads what Encode wrote; ErrCorrupt for anything else. What it
// returns is consistent: every index points into its list.
func Decode(data []byte) (*Facts, error) {
	h, err := DecodeHeader(data)
	if err != nil {
		return nil, err
	}
	r, err := unpacked(data)
	if err != nil {
		return nil, err
	}
	f := &Facts{
		Machine: h.Machine, Class: h.Class, Interp: h.Interp, Soname: h.Soname, RPath: h.RPath, RunPath: h.RunPath,
		Needed: h.Needed, NoDefLib: h.NoDefLib, Size: int64(r.uint()),
	}
	b := r.uint()
	f.Go, f.IsPIE = b&1 != 0, b&2 != 0
	f.Warnings, f.Strings = r.list(), r.list()
	f.Entry = uint32(r.uint())
	f.Roots, f.Held, f.RootImports, f.RootRegions = r.deltas(), r.deltas(), r.deltas(), r.deltas()
	f.Exports = r.exports()
	f.Imports = r.imports(f.ownFuncs())
	f.Regions = make([]Region, r.in(inRegions).count(3))
	for i := range f.Regions {
		g := &f.Regions[i]
		g.Name, g.Start = r.string(colOther), r.uint()
		g.End = g.Start + r.uint()
		g.Funcs, g.Imports, g.Regions, g.Strings = r.deltas(), r.deltas(), r.deltas(), r.deltas()
	}
	f.Funcs = make([]Func, min(r.in(inStarts).count(1), len(r.streams[inLengths]), len(r.streams[inHas])))
	last := uint64(0)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		fn.Start = last + uint64(r.in(inStarts).int())
		fn.End = fn.Start + r.in(inLengths).uint()
		last = fn.End
		r.function(fn, i)
	}
	r.in(inSymbols).symbols(f)
	if err := r.end(); err != nil {
		return nil, err
	}
	f.index()
	return f, f.check()
}

func (r *reader) exports() []Export {
	out := make([]Export, min(r.in(inNames).count(1), len(r.streams[inVersions]), len(r.streams[inMarks]), len(r.streams[inExports])))
	last := int64(0)
	for i := range out {
		e := &out[i]
		e.Name, e.Version = r.in(inNames).string(colName), r.in(inVersions).string(colVersion)
		b := r.in(inMarks).uint()
		e.Hidden, e.IFunc = b&1 != 0, b&2 != 0
		last += r.in(inExports).int()
		e.Func = uint32(last)
		if b&4 != 0 {
			e.Region = uint32(r.uint())
		}
	}
	return out
}

func (r *reader) imports(own map[string]uint32) []Import {
	out := make([]Import, min(r.in(inNames).count(1), len(r.streams[inVersions]), len(r.streams[inMarks])))
	for i := range out {
		m := &out[i]
		m.Name, m.Version = r.in(inNames).string(colName), r.in(inVersions).string(colVersion)
		b := r.in(inMarks).uint()
		m.Weak, m.Own, m.Copy = b&1 != 0, b&2 != 0, b&4 != 0
		r.in(inImports)
		m.OwnFunc = own[m.Name]
		if b&16 == 0 {
			m.OwnFunc = uint32(r.uint())
		}
		if b&8 != 0 {
			m.OwnRegion = uint32(r.uint())
		}
		if b&32 != 0 {
			m.Args = r.args()
		}
	}
	return out
}

type reader struct {
	streams [streams][]byte
	at      int // the stream that is read from
	bad     bool
	strs    []string
	numbers slab[uint32]
	edges   slab[Edge]
	uses    slab[ImportUse]
	next    [columns]uint64
}

// slab hands out many small slices that share few allocations.
type slab[T any] struct{ free []T }

func (s *slab[T]) take(n int) []T {
	if n > len(s.free) {
		s.free = make([]T, max(n, 1024))
	}
	out := s.free[:n:n]
	s.free = s.free[n:]
	return out
}

func unpacked(data []byte) (*reader, error) {
	plain, err := unpack(data)
	if err != nil {
		return nil, err
	}
	return newReader(plain)
}

func newReader(plain []byte) (*reader, error) {
	r := &reader{}
	// The pieces' lengths are read from the stream that is empty until then.
	r.streams[inGeneral] = plain
	n, total, table := r.uint(), r.uint(), r.uint()
	var sizes [streams]uint64
	for next := r.uint(); next > 0 && !r.bad; next = r.uint() {
		if next > streams || sizes[next-1] > 0 {
			return nil, ErrCorrupt
		}
		sizes[next-1] = r.uint()
	}
	rest := r.streams[inGeneral]
	take := func(size uint64) (b []byte) {
		if size > uint64(len(rest)) {
			r.bad = true
			return nil
		}
		b, rest = rest[:size], rest[size:]
		return b
	}
	text := take(table)
	for i, size := range sizes {
		r.streams[i] = take(size)
	}
	if r.bad || len(rest) > 0 || !r.table(text, n, total) {
		return nil, ErrCorrupt
	}
	return r, nil
}

// in has what follows read from a stream.
func (r *reader) in(stream int) *reader {
	r.at = stream
	return r
}

// table reads n strings, into one piece of memory, and reports whether that is
// what there was.
func (r *reader) table(b []byte, n, total uint64) bool {
	if total > maxStrings || n > uint64(len(b)/2) {
		return false
	}
	ends := make([]int, 0, n)
	text := make([]byte, 0, total)
	last := 0 // where the string before begins
	for range n {
		shared, k := binary.Uvarint(b)
		if k <= 0 {
			return false
		}
		rest, m := binary.Uvarint(b[k:])
		if m <= 0 {
			return false
		}
		b = b[k+m:]
		if rest > uint64(len(b)) || shared > uint64(len(text)-last) || uint64(len(text))+shared+rest > total {
			return false
		}
		begin := len(text)
		text = append(text, text[last:last+int(shared)]...)
		text = append(text, b[:rest]...)
		b = b[rest:]
		ends, last = append(ends, len(text)), begin
	}
	all := string(text)
	r.strs = make([]string, n)
	begin := 0
	for i, end := range ends {
		r.strs[i], begin = all[begin:end], end
	}
	return len(b) == 0
}

func (r *reader) end() error {
	for _, b := range r.streams {
		if len(b) > 0 {
			return ErrCorrupt
		}
	}
	if r.bad {
		return ErrCorrupt
	}
	return nil
}

// fail ends the reading: nothing is left in any stream.
func (r *reader) fail() {
	r.bad, r.streams = true, [streams][]byte{}
}

func (r *reader) uint() uint64 { return r.unsigned(r.at) }

func (r *reader) unsigned(stream int) uint64 {
	v, n := binary.Uvarint(r.streams[stream])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.streams[stream] = r.streams[stream][n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.streams[r.at])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.streams[r.at] = r.streams[r.at][n:]
	return v
}

// count reads the length of a list of things that take at least size bytes each
// of the stream, so that no input asks for more memory than it is long.
func (r *reader) count(size int) int {
	v := r.unsigned(r.at + 1)
	if v > uint64(len(r.streams[r.at])/size) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) string(column int) string {
	n := r.next[column] + uint64(r.int())
	if n >= uint64(len(r.strs)) {
		r.fail()
		return ""
	}
	r.next[column] = n + 1
	return r.strs[n]
}

func (r *reader) list() []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := make([]string, n)
	for i := range out {
		out[i] = r.string(colOther)
	}
	return out
}

func (r *reader) deltas() []uint32 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := r.numbers.take(n)
	last := int64(0)
	for i := range out {
		last += r.int()
		out[i] = uint32(last)
	}
	return out
}

func (r *reader) function(fn *Func, self int) {
	b := r.in(inHas).uint()
	fn.ComputedJump = b&1 != 0
	if b&2 != 0 {
		fn.Edges = r.edges.take(r.in(inEdges).count(1))
		last := int64(self)
		for i := range fn.Edges {
			last += r.in(inEdges).int()
			fn.Edges[i] = Edge{uint32(last), EdgeCall}
			if b&64 == 0 {
				fn.Edges[i].Kind = EdgeKind(r.in(inKinds).uint())
			}
		}
	}
	if b&4 != 0 {
		fn.Imports = r.uses.take(r.in(inUses).count(1))
		last := int64(0)
		for i := range fn.Imports {
			last += r.in(inUses).int()
			fn.Imports[i] = ImportUse{uint32(last), b&128 != 0 || r.in(inCalled).uint() != 0}
		}
	}
	if b&8 != 0 {
		fn.Regions = r.in(inUsedRegions).deltas()
	}
	if b&16 != 0 {
		fn.Strings = r.in(inUsedStrings).deltas()
	}
	if b&32 != 0 {
		fn.Sites = r.in(inSites).sites(fn.Start)
	}
	fn.Generic = b&512 != 0
	if b&256 != 0 {
		fn.Passes = r.in(inSites).passes()
	}
}

func (r *reader) sites(base uint64) []Site {
	out := make([]Site, r.count(5))
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
		if b&4 != 0 {
			s.Args = r.args()
		}
		if b&8 != 0 {
			s.Vars = r.deltas()
		}
		s.Unresolved, s.Via = r.string(colOther), uint32(r.uint())
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
	in(f.Held, len(f.Funcs))
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
		for k := range fn.Sites {
			in(fn.Sites[k].Vars, len(f.Exports))
		}
		for _, p := range fn.Passes {
			if p.Import {
				ok = ok && int(p.To) < len(f.Imports)
			} else {
				ok = ok && int(p.To) < len(f.Funcs)
			}
		}
	}
	if !ok {
		return ErrCorrupt
	}
	return nil
}
