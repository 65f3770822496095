package facts

import (
	"iter"
	"math/bits"
	"slices"
	"sort"
)

// Symbol is the name of an import with what finds it in tables of exports.
type Symbol struct {
	Name string
	hash uint32
}

// SymbolOf returns the symbol of a name.
func SymbolOf(name string) Symbol { return Symbol{name, hashOf(name)} }

// Symbol returns the symbol of an import.
func (f *Facts) Symbol(imp uint32) Symbol {
	if int(imp) < len(f.hashes) {
		return Symbol{f.Imports[imp].Name, f.hashes[imp]}
	}
	return SymbolOf(f.Imports[imp].Name)
}

// Hash is a number that equal names have in common.
func (s Symbol) Hash() uint32 { return s.hash }

// Text returns one of Strings as a symbol.
func (f *Facts) Text(i uint32) Symbol {
	if int(i) < len(f.texts) {
		return Symbol{f.Strings[i], f.texts[i]}
	}
	return SymbolOf(f.Strings[i])
}

// hashOf is FNV-1a (RFC 9923).
func hashOf(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// nameTable finds exports by name. Names are sorted by their hashes, those of
// one hash by themselves, so that no choice of names makes it slow.
type nameTable struct {
	shift uint
	// buckets says for each value of a hash's upper bits where its entries
	// begin; the last one where they end.
	buckets []uint32
	entries []nameEntry
}

type nameEntry struct {
	hash  uint32
	first uint32 // the first export of the name
	ifunc bool   // one of them is an indirect function
}

// Hashed are the names of exports that have one hash.
type Hashed struct {
	Hash uint32
	// First is the first export of the first of them, and Several is set when
	// there are others.
	First   uint32
	Several bool
	IFunc   bool // one of the exports is an indirect function
}

// Hashes yields the hashes of the names of exports, each once.
func (f *Facts) Hashes() iter.Seq[Hashed] {
	return func(yield func(Hashed) bool) {
		if f.byName == nil {
			return
		}
		list := f.byName.entries
		for i := 0; i < len(list); {
			h, from := Hashed{Hash: list[i].hash, First: list[i].first}, i
			for ; i < len(list) && list[i].hash == h.Hash; i++ {
				h.IFunc = h.IFunc || list[i].ifunc
			}
			h.Several = i > from+1
			if !yield(h) {
				return
			}
		}
	}
}

// Hash is the hash of an import's symbol.
func (f *Facts) Hash(imp uint32) uint32 {
	if int(imp) < len(f.hashes) {
		return f.hashes[imp]
	}
	return hashOf(f.Imports[imp].Name)
}

// Links is how many references the functions and the data hold, to whatever;
// 0 for facts that this package didn't make.
func (f *Facts) Links() int { return f.links }

// index makes Named and Symbol fast, and counts what Links tells.
func (f *Facts) index() {
	f.links = 0
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		f.links += len(fn.Edges) + len(fn.Imports) + len(fn.Regions) + len(fn.Strings)
	}
	for i := range f.Regions {
		r := &f.Regions[i]
		f.links += len(r.Funcs) + len(r.Imports) + len(r.Regions) + len(r.Strings)
	}
	f.hashes = make([]uint32, len(f.Imports))
	for i := range f.Imports {
		f.hashes[i] = hashOf(f.Imports[i].Name)
	}
	f.texts = make([]uint32, len(f.Strings))
	for i, s := range f.Strings {
		f.texts[i] = hashOf(s)
	}
	f.indexWays()
	t := &nameTable{}
	for i := range f.Exports {
		if name := f.Exports[i].Name; i == 0 || name != f.Exports[i-1].Name {
			t.entries = append(t.entries, nameEntry{hash: hashOf(name), first: uint32(i)})
		}
		last := &t.entries[len(t.entries)-1]
		last.ifunc = last.ifunc || f.Exports[i].IFunc
	}
	slices.SortStableFunc(t.entries, func(a, b nameEntry) int {
		if a.hash != b.hash {
			if a.hash < b.hash {
				return -1
			}
			return 1
		}
		return 0
	})
	width := uint(bits.Len(uint(len(t.entries))))
	t.shift = 32 - width
	t.buckets = make([]uint32, 1<<width+1)
	for i := range t.entries {
		t.buckets[t.entries[i].hash>>t.shift+1]++
	}
	for i := 1; i < len(t.buckets); i++ {
		t.buckets[i] += t.buckets[i-1]
	}
	f.byName = t
}

// first returns the first export of a symbol, len(exports) when there is none.
func (t *nameTable) first(exports []Export, s Symbol) int {
	b := s.hash >> t.shift
	list := t.entries[t.buckets[b]:t.buckets[b+1]]
	i := 0
	if len(list) > 8 {
		i = sort.Search(len(list), func(i int) bool {
			e := &list[i]
			return e.hash > s.hash || e.hash == s.hash && exports[e.first].Name >= s.Name
		})
	}
	for ; i < len(list) && list[i].hash <= s.hash; i++ {
		if list[i].hash == s.hash && exports[list[i].first].Name == s.Name {
			return int(list[i].first)
		}
		if len(list) > 8 {
			break
		}
	}
	return len(exports)
}

// Named returns where the exports of a symbol begin and end in Exports; both
// are equal when there are none.
func (f *Facts) Named(s Symbol) (first, end int) {
	if f.byName != nil {
		first = f.byName.first(f.Exports, s)
	} else {
		first = sort.Search(len(f.Exports), func(i int) bool { return f.Exports[i].Name >= s.Name })
	}
	return first, f.namedEnd(first, s.Name)
}

// NamedAt is Named where a name would begin that has one of Hashes for itself.
func (f *Facts) NamedAt(at uint32, s Symbol) (first, end int) {
	return int(at), f.namedEnd(int(at), s.Name)
}

// namedEnd is where the exports of a name end that begin at first.
func (f *Facts) namedEnd(first int, name string) int {
	end := first
	for end < len(f.Exports) && f.Exports[end].Name == name {
		end++
	}
	return end
}
