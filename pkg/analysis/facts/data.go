package facts

import (
	"cmp"
	"debug/elf"
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// data reads the pointers that data holds: exactly, by relocations, or, in
// programs with fixed addresses that have none, every aligned word that is the
// address of code.
func (o *Object) data() {
	f := o.File
	arrays := func(a uint64) bool {
		for _, r := range f.InitArrays {
			if a >= r[0] && a < r[1] {
				return true
			}
		}
		return false
	}
	for i := range f.Relocs {
		r := &f.Relocs[i]
		g := o.regionAt(r.Addr)
		if g < 0 {
			continue
		}
		if o.isGOT(g) && r.Type != object.RCopy {
			// Counted slot by slot where code names the slot, and as a whole
			// where code takes the table's address.
			o.pointer(&o.Facts.Regions[g], r)
			continue
		}
		if arrays(r.Addr) {
			o.rootPointer(r)
			continue
		}
		o.pointer(&o.Facts.Regions[g], r)
	}
	if !f.IsPIE {
		o.scanWords(arrays)
	}
	for i := range o.Facts.Regions {
		r := &o.Facts.Regions[i]
		r.Funcs, r.Imports, r.Regions, r.Strings = uniq(r.Funcs), uniq(r.Imports), uniq(r.Regions), uniq(r.Strings)
	}
	for i := range o.Facts.Funcs {
		o.Facts.Funcs[i].compact()
	}
}

func uniq[T cmp.Ordered](s []T) []T {
	slices.Sort(s)
	return slices.Clip(slices.Compact(s))
}

func (fn *Func) compact() {
	slices.SortFunc(fn.Edges, compareEdges)
	fn.Edges = slices.Clip(slices.Compact(fn.Edges))
	slices.SortFunc(fn.Imports, compareUses)
	fn.Imports = slices.Clip(slices.Compact(fn.Imports))
	fn.Regions, fn.Strings = uniq(fn.Regions), uniq(fn.Strings)
}

func compareEdges(a, b Edge) int {
	return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Kind, b.Kind))
}

// compareUses puts calls of an import before other uses.
func compareUses(a, b ImportUse) int {
	if a.Import == b.Import && a.Called != b.Called {
		if a.Called {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.Import, b.Import)
}

// pointer adds what a relocation stores to a region.
func (o *Object) pointer(g *Region, r *object.Reloc) {
	switch {
	case r.Type == object.RRelative || r.Type == object.RIRelative:
		o.pointTo(g, r.Addend)
	case r.Sym >= 0 && (r.Type == object.R64 || r.Type == object.RGlobDat || r.Type == object.RJumpSlot || r.Type == object.RCopy):
		s := &o.File.DynSyms[r.Sym]
		if s.Bind == elf.STB_LOCAL && s.Defined {
			o.pointTo(g, s.Addr+r.Addend)
			return
		}
		i := o.importOf(r.Sym)
		if r.Type == object.RCopy {
			o.Facts.Imports[i].Copy = true
		}
		g.Imports = append(g.Imports, i)
		if s.Defined { // whichever definition wins, the own one may
			o.pointTo(g, s.Addr+r.Addend)
		}
	}
}

func (o *Object) pointTo(g *Region, to uint64) {
	if o.code(to) {
		if slot, ok := o.pltSlot(to); ok {
			if r := &o.File.Relocs[o.relocAt[slot]]; r.Sym >= 0 {
				g.Imports = append(g.Imports, o.importOf(r.Sym))
				return
			}
		}
		i := o.FuncAt(to)
		if i < 0 {
			return
		}
		g.Funcs = append(g.Funcs, uint32(i))
		o.inner(i, to)
		return
	}
	// The loader's own table holds the address of the global offset table.
	if i := o.regionAt(to); i >= 0 && !o.isGOT(i) {
		if &o.Facts.Regions[i] != g {
			g.Regions = append(g.Regions, uint32(i))
		}
		if s, ok := o.stringAt(to); ok {
			g.Strings = append(g.Strings, s)
		}
		table := o.relativeTable(to)
		for _, d := range o.objects[to] {
			if k := o.regionAt(d); k >= 0 && !o.isGOT(k) && &o.Facts.Regions[k] != g {
				g.Regions = append(g.Regions, uint32(k))
			}
			if s, ok := o.stringAt(d); ok {
				g.Strings = append(g.Strings, s)
			}
		}
		for _, e := range table {
			if fn := o.FuncAt(e.to); fn >= 0 {
				g.Funcs = append(g.Funcs, uint32(fn))
				o.inner(fn, e.to)
			}
		}
	}
}

// inner notes an address inside of a function that something holds: a label
// that its computed jumps may go to, or another entry.
func (o *Object) inner(i int, to uint64) {
	switch fn := &o.Facts.Funcs[i]; {
	case to == fn.Start:
	case fn.ComputedJump:
		o.tables[uint32(i)] = append(o.tables[uint32(i)], to)
	default:
		o.entries[uint32(i)] = append(o.entries[uint32(i)], to)
		o.hold(to)
	}
}

func (o *Object) rootPointer(r *object.Reloc) {
	to := r.Addend
	if r.Sym >= 0 {
		s := &o.File.DynSyms[r.Sym]
		if !s.Defined {
			o.Facts.RootImports = append(o.Facts.RootImports, o.importOf(r.Sym))
			return
		}
		to += s.Addr
	}
	if i := o.FuncAt(to); i >= 0 && o.code(to) {
		o.Facts.Roots = append(o.Facts.Roots, uint32(i))
	}
}

// scanWords looks at every aligned word of data in a program with fixed
// addresses.
func (o *Object) scanWords(arrays func(uint64) bool) {
	f := o.File
	for i := range o.Facts.Regions {
		g := &o.Facts.Regions[i]
		if linkers(g.Name) && !o.isGOT(i) {
			continue
		}
		b := f.Bytes(g.Start, g.End-g.Start)
		w := f.WordSize()
		for p := (w - g.Start%w) % w; p+w <= uint64(len(b)); p += w {
			v, _ := f.Word(g.Start + p)
			if v < 4096 || !f.InImage(v) {
				continue
			}
			if _, ok := o.relocAt[g.Start+p]; ok {
				continue // the loader writes another one
			}
			if arrays(g.Start + p) {
				if fn := o.FuncAt(v); fn >= 0 && o.code(v) {
					o.Facts.Roots = append(o.Facts.Roots, uint32(fn))
				}
				continue
			}
			if o.code(v) && !o.bound.has(v-o.textLo) {
				continue
			}
			o.pointTo(g, v)
		}
	}
}

// exports lists the symbols that others can bind to, and the names of
// functions for people.
func (o *Object) exports() {
	if o.Facts.Symbols == nil {
		o.Facts.Symbols = map[uint32]string{}
	}
	name := func(s *object.Symbol, fn int) {
		if fn >= 0 && s.Name != "" && (s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC || s.Type == elf.STT_NOTYPE) {
			old, ok := o.Facts.Symbols[uint32(fn)]
			if !ok || better(s.Name, old) {
				o.Facts.Symbols[uint32(fn)] = s.Name
			}
		}
	}
	for i := range o.File.DynSyms {
		s := &o.File.DynSyms[i]
		if !s.Defined || s.Name == "" || s.Bind == elf.STB_LOCAL || s.Type == elf.STT_TLS {
			continue
		}
		e := Export{Name: s.Name, Version: s.Version, Hidden: s.Hidden, IFunc: s.Type == elf.STT_GNU_IFUNC}
		if o.code(s.Addr) && s.Type != elf.STT_OBJECT {
			if fn := o.FuncAt(s.Addr); fn >= 0 {
				e.Func = uint32(fn) + 1
				name(s, fn)
			}
		} else if r := o.regionAt(s.Addr); r >= 0 {
			e.Region = uint32(r) + 1
		}
		o.Facts.Exports = append(o.Facts.Exports, e)
	}
	for i := range o.File.Symtab {
		s := &o.File.Symtab[i]
		if s.Defined && o.code(s.Addr) {
			name(s, o.FuncAt(s.Addr))
		}
	}
	o.goNames()
	sort.Slice(o.Facts.Exports, func(i, j int) bool {
		a, b := &o.Facts.Exports[i], &o.Facts.Exports[j]
		return a.Name < b.Name || a.Name == b.Name && a.Version < b.Version
	})
}

// better prefers the name without leading underscores, then the shorter one,
// then the first by order, so that the choice doesn't depend on the table.
func better(a, b string) bool {
	under := func(s string) int {
		n := 0
		for n < len(s) && s[n] == '_' {
			n++
		}
		return n
	}
	return cmp.Or(cmp.Compare(under(a), under(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) < 0
}

// roots notes what the kernel and the loader enter by themselves.
func (o *Object) roots() {
	f := o.File
	root := func(a uint64) {
		if o.code(a) {
			if i := o.FuncAt(a); i >= 0 {
				o.Facts.Roots = append(o.Facts.Roots, uint32(i))
			}
		}
	}
	if f.Entry != 0 && o.code(f.Entry) {
		if i := o.FuncAt(f.Entry); i >= 0 {
			o.Facts.Entry = uint32(i) + 1
		}
	}
	for _, a := range f.Init {
		root(a)
	}
	for i := range f.Relocs {
		if f.Relocs[i].Type == object.RIRelative {
			root(f.Relocs[i].Addend)
		}
	}
	if !f.HasDynamic && f.HasSections {
		for _, s := range f.Sections {
			if s.Name == ".init" || s.Name == ".fini" {
				root(s.Addr)
			}
		}
	}
	// Arrays of a position-independent object whose entries carry no
	// relocation hold nothing; those of one with fixed addresses were scanned.
	if o.Facts.Go {
		// Go's linker has already dropped what can't be reached, and finds
		// methods by tables of 32-bit offsets that are no relocations: all of
		// the program's functions count. Calls through stubs of the procedure
		// linkage table are those of who jumps there.
		for i := range o.Facts.Funcs {
			if !o.stubs(i) {
				o.Facts.Roots = append(o.Facts.Roots, uint32(i))
			}
		}
	}
	// Thread-local data is never addressed by its place in the file.
	if f.TLS[1] > f.TLS[0] {
		for i, r := range o.Facts.Regions {
			if r.Start < f.TLS[1] && r.End > f.TLS[0] {
				o.Facts.RootRegions = append(o.Facts.RootRegions, uint32(i))
			}
		}
	}
	o.Facts.Roots, o.Facts.RootImports = uniq(o.Facts.Roots), uniq(o.Facts.RootImports)
}

// callGraph notes who calls whom, and through which inner entries.
func (o *Object) callGraph() {
	o.callers = map[uint32][]uint32{}
	for i := range o.entries {
		o.entries[i] = uniq(o.entries[i])
	}
	for i := range o.tables {
		o.tables[i] = uniq(o.tables[i])
	}
	for i := range o.Facts.Funcs {
		for _, e := range o.Facts.Funcs[i].Edges {
			if e.Kind == EdgeCall || e.Kind == EdgeFall {
				o.callers[e.To] = append(o.callers[e.To], uint32(i))
			}
		}
	}
}
