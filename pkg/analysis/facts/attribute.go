package facts

import (
	"debug/elf"
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// regions makes one region of every section that isn't code. Pointers inside
// the global offset table are attributed slot by slot.
func (o *Object) regions() {
	for _, s := range o.File.Sections {
		if !s.Exec {
			o.Facts.Regions = append(o.Facts.Regions, Region{Name: s.Name, Start: s.Addr, End: s.Addr + s.Size})
		}
	}
}

func (o *Object) regionAt(addr uint64) int {
	rs := o.Facts.Regions
	i := sort.Search(len(rs), func(i int) bool { return rs[i].End > addr })
	if i < len(rs) && rs[i].Start <= addr {
		return i
	}
	// One past the end of a section is a legal address too (loop bounds), and
	// belongs to the section before it. Where another begins there, reach knows.
	if i > 0 && rs[i-1].End == addr {
		return i - 1
	}
	return -1
}

func (o *Object) isGOT(region int) bool { return isGOT(o.Facts.Regions[region].Name) }

// isGOT reports whether a section of that name is the global offset table, or a
// part of it.
func isGOT(name string) bool { return name == ".got" || name == ".got.plt" }

// importOf returns the index of the import for a dynamic symbol.
func (o *Object) importOf(sym int32) uint32 {
	if i, ok := o.imports[sym]; ok {
		return i
	}
	s := &o.File.DynSyms[sym]
	imp := Import{Name: s.Name, Version: s.Version, Weak: s.Bind == elf.STB_WEAK}
	if s.Defined {
		imp.Own = true
		if fn := o.FuncAt(s.Addr); fn >= 0 {
			imp.OwnFunc = uint32(fn) + 1
		} else if r := o.regionAt(s.Addr); r >= 0 {
			imp.OwnRegion = uint32(r) + 1
		}
	}
	i := uint32(len(o.Facts.Imports))
	o.Facts.Imports = append(o.Facts.Imports, imp)
	o.imports[sym] = i
	return i
}

// pltSlot returns the slot that a PLT stub at addr jumps through.
func (o *Object) pltSlot(addr uint64) (uint64, bool) {
	return o.mach.pltSlot(o, addr)
}

func (fn *Func) edge(to int, kind EdgeKind) {
	fn.Edges = append(fn.Edges, Edge{uint32(to), kind})
}

// slot follows the pointer that the loader writes to a relocated slot.
func (o *Object) slot(fn *Func, r *object.Reloc, called bool) {
	kind := EdgeRef
	if called {
		kind = EdgeCall
	}
	switch {
	case r.Sym >= 0:
		s := &o.File.DynSyms[r.Sym]
		if s.Bind == elf.STB_LOCAL && s.Defined {
			o.address(fn, s.Addr+r.Addend, kind)
			return
		}
		fn.Imports = append(fn.Imports, ImportUse{o.importOf(r.Sym), called})
	case r.Type == object.RIRelative:
		// The resolver is called, and returns one of the addresses that it
		// takes; a caller's arguments go to those.
		o.address(fn, r.Addend, EdgeRef)
	case r.Type == object.RRelative:
		o.address(fn, r.Addend, kind)
	}
}

// address notes that fn gets hold of an address.
func (o *Object) address(fn *Func, to uint64, kind EdgeKind) {
	if o.code(to) {
		if slot, ok := o.pltSlot(to); ok {
			o.slot(fn, &o.File.Relocs[o.relocAt[slot]], kind == EdgeCall)
			return
		}
		if kind != EdgeCall && o.dataInText(to) {
			return
		}
		if i := o.FuncAt(to); i >= 0 {
			// The unwind ranges of signal restorers begin a byte early.
			if start := o.Facts.Funcs[i].Start; kind == EdgeRef && to != start && to != start+1 {
				kind = EdgeInner
				o.hold(to)
			}
			fn.edge(i, kind)
			if to != o.Facts.Funcs[i].Start {
				o.entries[uint32(i)] = append(o.entries[uint32(i)], to)
			}
		}
		return
	}
	if r := o.regionAt(to); r >= 0 {
		o.reach(fn, r, to)
		if s, ok := o.stringAt(to); ok {
			fn.Strings = append(fn.Strings, s)
		}
		for _, d := range o.objects[to] {
			if k := o.regionAt(d); k >= 0 {
				o.reach(fn, k, d)
			}
			if s, ok := o.stringAt(d); ok {
				fn.Strings = append(fn.Strings, s)
			}
		}
	}
}

// maxBias is how far, in bytes, before an array its folded base address may
// lie ("array[i-1]" with i >= 1 addresses array-1).
const maxBias = 128

// reach adds the region of a data address, the next one when the address is so
// near to its start that it may be its biased base, and the one before when it
// is the end of that: an array may be walked from its end.
func (o *Object) reach(fn *Func, r int, to uint64) {
	fn.Regions = append(fn.Regions, uint32(r))
	for k := r - 1; k >= 0 && o.Facts.Regions[k].End == to && to == o.Facts.Regions[r].Start; k-- {
		if !o.isGOT(k) {
			fn.Regions = append(fn.Regions, uint32(k))
		}
	}
	if r+1 < len(o.Facts.Regions) && !o.isGOT(r+1) && o.Facts.Regions[r+1].Start-to <= maxBias && to < o.Facts.Regions[r+1].Start {
		fn.Regions = append(fn.Regions, uint32(r+1))
	}
}

// stringAt returns the index of a string that can name a file or a library.
func (o *Object) stringAt(addr uint64) (uint32, bool) {
	s, ok := o.File.CString(addr, 256)
	if !ok || !interesting(s) {
		return 0, false
	}
	if i, ok := o.strIdx[s]; ok {
		return i, true
	}
	i := uint32(len(o.Facts.Strings))
	o.Facts.Strings = append(o.Facts.Strings, s)
	o.strIdx[s] = i
	return i, true
}

// interesting reports whether a string may name a program, an object or a
// function: an absolute path, a shared object's name, an identifier.
func interesting(s string) bool {
	if len(s) < 4 {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	if s[0] == '/' {
		return !strings.ContainsAny(s, "%*\n")
	}
	if strings.Index(s, ",ccs=") > 0 { // a mode of fopen(3) with a character set
		return true
	}
	return !strings.ContainsAny(s, " %") && (strings.HasSuffix(s, ".so") || strings.Contains(s, ".so.")) || identifier(s)
}

// identifier reports whether a string may be the name of a function, or the
// end of one, that is looked up at run time.
func identifier(s string) bool {
	if len(s) > 64 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// attribute gives every reference to the function that it lies in.
func (o *Object) attribute() {
	f := o.File
	fs := o.Facts.Funcs
	ri, si, ii := 0, 0, 0
	dataTargets := dataTargets(o, o.refs)
	for i := range fs {
		fn := &fs[i]
		from := ri
		for ri < len(o.refs) && o.at(&o.refs[ri]) < fn.Start {
			ri++
			from = ri
		}
		for ; ri < len(o.refs) && o.at(&o.refs[ri]) < fn.End; ri++ {
			o.reference(fn, i, &o.refs[ri])
		}
		for si < len(o.sites) && o.sites[si].at < fn.Start {
			si++
		}
		for ; si < len(o.sites) && o.sites[si].at < fn.End; si++ {
			fn.Sites = append(fn.Sites, Site{Addr: o.sites[si].at, Kind: o.sites[si].kind})
		}
		for ii < len(o.indir) && o.indir[ii] < fn.Start {
			ii++
		}
		for ; ii < len(o.indir) && o.indir[ii] < fn.End; ii++ {
			fn.ComputedJump = true
		}
		if fn.ComputedJump {
			o.mach.jumpTables(o, fn, i, o.refs[from:ri], dataTargets)
		}
		if o.fallsThrough(fn) && i+1 < len(fs) && fs[i+1].Start == fn.End {
			fn.edge(i+1, EdgeFall)
		}
	}
	_ = f
}

// reference follows one reference of a function.
func (o *Object) reference(fn *Func, self int, r *ref) {
	switch r.kind {
	case refJump:
		if r.to >= fn.Start && r.to < fn.End {
			if r.to == fn.Start && o.at(r) != r.to && o.isStart(o.at(r), r.to) {
				fn.edge(self, EdgeCall) // recursion: a call site with arguments of its own
			}
			return
		}
		o.address(fn, r.to, EdgeCall)
	case refSlot:
		if i, ok := o.relocAt[r.to]; ok {
			o.slot(fn, &o.File.Relocs[i], true)
			if g := o.regionAt(r.to); g >= 0 && !o.isGOT(g) {
				o.reach(fn, g, r.to)
			}
			return
		}
		if g := o.regionAt(r.to); g >= 0 {
			o.reach(fn, g, r.to)
		}
	case refLoad:
		g := o.regionAt(r.to)
		if g < 0 {
			return // constants between instructions
		}
		if i, ok := o.relocAt[r.to]; ok && o.isGOT(g) {
			if o.File.Relocs[i].Type == object.RTLS {
				return
			}
			o.slot(fn, &o.File.Relocs[i], false)
			return
		}
		if o.isGOT(g) {
			// A slot without relocation: a static program's, filled by the
			// linker, or padding.
			if v, ok := o.File.Word(r.to); ok && o.File.InImage(v) && !o.File.IsPIE {
				o.address(fn, v, EdgeRef)
			}
			return
		}
		o.reach(fn, g, r.to)
		if i, ok := o.relocAt[r.to]; ok && o.File.Relocs[i].Type == object.RGlobDat {
			o.slot(fn, &o.File.Relocs[i], false)
		}
	case refAddr:
		if i := o.regionAt(r.to); i >= 0 && o.isGOT(i) && !o.code(r.to) {
			if j, ok := o.relocAt[r.to]; ok && o.File.Relocs[j].Type == object.RTLS {
				return // the argument of __tls_get_addr
			}
			if o.endOf(fn, i, r.to) {
				o.reach(fn, i-1, r.to)
				return
			}
			// The table's own address: base of large-model accesses; or only
			// _DYNAMIC arithmetic in the loader itself. All slots count.
			fn.Regions = append(fn.Regions, uint32(i))
			return
		}
		if o.code(r.to) && r.to >= fn.Start && r.to < fn.End && r.to != fn.Start {
			o.inner(self, r.to) // a label of its own
			return
		}
		kind := EdgeRef
		if o.mach.compared(o, o.at(r)) {
			kind = EdgeInner
		}
		o.address(fn, r.to, kind)
	case refPage:
		o.page(fn, self, r.to)
	case refImm:
		if o.code(r.to) {
			if r.to >= fn.Start && r.to < fn.End || !o.bound.has(r.to-o.textLo) {
				return
			}
			if !o.enterable(r.to) {
				return
			}
			o.address(fn, r.to, EdgeRef)
			return
		}
		if i := o.regionAt(r.to); i >= 0 && o.isGOT(i) && o.endOf(fn, i, r.to) {
			o.reach(fn, i-1, r.to)
			return
		}
		o.address(fn, r.to, EdgeRef)
	}
}

// enterable reports whether an immediate is the address of code and not a number:
// it is a start, a stub of an import, a place in code without unwind data, or one
// byte behind a start (signal restorers, whose unwind range begins early).
func (o *Object) enterable(to uint64) bool {
	i := o.FuncAt(to)
	if i < 0 {
		return false
	}
	start := o.Facts.Funcs[i].Start
	if to == start || to == start+1 || !o.inFDE(to) || o.isTarget(to) {
		return true
	}
	_, ok := o.pltSlot(to)
	return ok
}

// endOf reports whether the address of the global offset table's begin, in a
// function, is that of the end of what lies before it: so it is in the start-up
// code of programs that LLVM's linker made. A function that reads the table
// through its address has an instruction that could.
func (o *Object) endOf(fn *Func, got int, to uint64) bool {
	m, ok := o.mach.(interface{ based(code []byte) bool })
	if !ok || to != o.Facts.Regions[got].Start || got == 0 || o.Facts.Regions[got-1].End != to {
		return false
	}
	for at := fn.Start; at < fn.End; {
		code := o.File.Bytes(at, fn.End-at)
		n := o.mach.flow(at, code).n
		if n == 0 || m.based(code) {
			return false
		}
		at += uint64(n)
	}
	return true
}

// page counts everything that begins in a page as referred to.
func (o *Object) page(fn *Func, self int, page uint64) {
	for i := range o.Facts.Regions {
		if g := &o.Facts.Regions[i]; g.Start < page+4096 && g.End > page {
			fn.Regions = append(fn.Regions, uint32(i))
		}
	}
	i := sort.Search(len(o.Facts.Funcs), func(i int) bool { return o.Facts.Funcs[i].Start >= page })
	for ; i < len(o.Facts.Funcs) && o.Facts.Funcs[i].Start < page+4096; i++ {
		if i != self {
			fn.edge(i, EdgeRef)
		}
	}
}
