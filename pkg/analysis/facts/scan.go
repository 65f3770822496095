package facts

import (
	"cmp"
	"context"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// refKind says what an instruction does with an address.
type refKind uint8

const (
	refJump refKind = iota + 1 // direct call, jump or branch to it
	refSlot                    // call or jump through the pointer stored there
	refLoad                    // memory operand there
	refAddr                    // the address itself is computed (lea)
	refImm                     // an immediate that may be the address
)

// ref is one address in one instruction.
type ref struct {
	to   uint64
	off  uint32 // of the instruction, from the start of the code
	kind refKind
}

// at is the address of the instruction that a reference lies in.
func (o *Object) at(r *ref) uint64 { return o.textLo + uint64(r.off) }

// site is one instruction that enters the kernel.
type rawSite struct {
	at   uint64
	kind SiteKind
}

// Object couples a parsed file with what its code says; it answers questions
// about values, which Facts alone can't. It is safe for concurrent use once
// built.
type Object struct {
	File  *object.File
	Facts *Facts

	bound   bitset // instruction boundaries, by address - textLo
	textLo  uint64
	textHi  uint64
	refs    []ref // by off
	sites   []rawSite
	indir   []uint64 // addresses of computed jumps (not calls)
	icalls  []uint64
	targets bitset           // known targets, by address - textLo: where code is entered
	starts  bitset           // those of them at which a function begins
	relocAt map[uint64]int   // address of a slot to its index in File.Relocs
	imports map[int32]uint32 // index of a dynamic symbol to that of an import
	strIdx  map[string]uint32
	entries map[uint32][]uint64 // function index to entries that aren't its start
	tables  map[uint32][]uint64 // function index to targets of its jump tables inside of it
	callers map[uint32][]uint32 // function index to functions with an EdgeCall to it
	returns map[uint64]bool     // function starts to whether they can return
	probed  map[uint64]bool     // addresses in gaps to whether they hold data
	asked   map[atom]struct{}   // variables that the present question went through
	shallow bool                // whether values of variables don't matter
	budget  int                 // instructions that may still be interpreted
	refd    map[uint32]bool     // functions that more than direct calls can enter
	// callbacks tells of functions that read a number behind a pointer when
	// they are called back whether all who pass them are known.
	callbacks map[uint32]bool
}

type bitset []uint64

func (b bitset) set(i uint64)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) has(i uint64) bool { return b[i>>6]>>(i&63)&1 != 0 }

// Extract reads an object. An object of another architecture yields Facts
// without functions, which callers tell by Machine and Class.
func Extract(ctx context.Context, data []byte) (*Object, error) {
	f, err := object.Parse(data)
	if err != nil {
		return nil, err
	}
	return Build(ctx, f)
}

// Build is Extract for a file that is parsed already.
func Build(ctx context.Context, f *object.File) (*Object, error) {
	o := &Object{File: f, Facts: &Facts{
		Machine: f.Machine, Class: f.Class, Size: int64(len(f.Data)),
		Interp: f.Interp, Soname: f.Soname, RPath: f.RPath, RunPath: f.RunPath, Needed: f.Needed,
		NoDefLib: f.Flags1&FlagNoDefLib != 0, Go: f.GoPCLN[1] > 0, IsPIE: f.IsPIE, Warnings: f.Warnings,
	}}
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return o, nil
	}
	if err := o.build(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *Object) build(ctx context.Context) error {
	f := o.File
	o.textLo, o.textHi = ^uint64(0), 0
	for _, s := range f.Segments {
		if s.Flags&elf.PF_X != 0 && s.FileSize > 0 {
			o.textLo, o.textHi = min(o.textLo, s.Addr), max(o.textHi, s.Addr+s.FileSize)
		}
	}
	if o.textHi <= o.textLo {
		return nil
	}
	if o.textHi-o.textLo > object.MaxSize {
		return fmt.Errorf("%w: executable segments lie too far apart", object.ErrMalformed)
	}
	o.bound = make(bitset, (o.textHi-o.textLo)>>6+1)
	o.targets, o.starts = make(bitset, len(o.bound)), make(bitset, len(o.bound))
	o.refs = make([]ref, 0, (o.textHi-o.textLo)/bytesPerRef)
	o.relocAt = make(map[uint64]int, len(f.Relocs))
	for i := range f.Relocs {
		o.relocAt[f.Relocs[i].Addr] = i
	}
	o.imports = map[int32]uint32{}
	o.strIdx = map[string]uint32{}
	o.entries = map[uint32][]uint64{}
	o.tables = map[uint32][]uint64{}
	o.budget = minBudget + int(o.textHi-o.textLo)*budgetPerByte
	o.seedStarts()
	if err := o.decodeAll(ctx); err != nil {
		return err
	}
	byOffset := func(a, b ref) int { return cmp.Compare(a.off, b.off) }
	if !slices.IsSortedFunc(o.refs, byOffset) {
		slices.SortStableFunc(o.refs, byOffset)
	}
	sort.Slice(o.sites, func(i, j int) bool { return o.sites[i].at < o.sites[j].at })
	sort.Slice(o.indir, func(i, j int) bool { return o.indir[i] < o.indir[j] })
	o.intervals()
	o.tailTargets()
	o.regions()
	o.attribute()
	o.data()
	o.exports()
	o.roots()
	o.dropPadding()
	o.callGraph()
	o.dropUnentered()
	return o.resolveSites(ctx)
}

// code reports whether addr may hold instructions that are decoded here.
func (o *Object) code(addr uint64) bool {
	if addr < o.textLo || addr >= o.textHi || !o.File.InExec(addr) {
		return false
	}
	if o.File.HasSections {
		s := o.File.SectionAt(addr)
		return s >= 0 && o.File.Sections[s].Exec && !o.File.Sections[s].NoBits
	}
	return o.File.From(addr) != nil
}

// seedStarts collects targets that are known before anything is decoded.
func (o *Object) seedStarts() {
	f := o.File
	add := func(a uint64) {
		if a != 0 && o.code(a) {
			o.enter(a, true)
		}
	}
	add(f.Entry)
	for _, tab := range [][]object.Symbol{f.DynSyms, f.Symtab} {
		for i := range tab {
			s := &tab[i]
			if s.Defined && (s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC || s.Type == elf.STT_NOTYPE) {
				add(s.Addr)
			}
		}
	}
	for _, a := range f.Init {
		add(a)
	}
	for i := range f.Relocs {
		r := &f.Relocs[i]
		switch r.Type {
		case object.RRelative, object.RIRelative:
			add(r.Addend)
		case object.R64:
			if r.Sym >= 0 && f.DynSyms[r.Sym].Defined {
				add(f.DynSyms[r.Sym].Addr + r.Addend)
			}
		}
	}
	if f.GoPCLN[1] > 0 {
		o.goFuncs()
	}
}

// goFuncs reads function starts and names from Go's own table.
func (o *Object) goFuncs() {
	defer func() {
		if r := recover(); r != nil { // gosym panics on some corrupt tables
			o.Facts.Warnings = append(o.Facts.Warnings, "corrupt Go function table")
		}
	}()
	b := o.File.Bytes(o.File.GoPCLN[0], o.File.GoPCLN[1])
	text := o.textLo
	for _, s := range o.File.Sections {
		if s.Exec && s.Name == ".text" {
			text = s.Addr
		}
	}
	for i := range o.File.Symtab {
		if o.File.Symtab[i].Name == "runtime.text" {
			text = o.File.Symtab[i].Addr
		}
	}
	tab, err := gosym.NewTable(nil, gosym.NewLineTable(b, text))
	if err != nil {
		o.Facts.Warnings = append(o.Facts.Warnings, "unreadable Go function table: "+err.Error())
		return
	}
	o.Facts.Symbols = make(map[uint32]string)
	for i := range tab.Funcs {
		fn := &tab.Funcs[i]
		if o.code(fn.Entry) {
			o.enter(fn.Entry, true)
		}
	}
}

type span struct{ lo, hi uint64 }

// codeSpans lists the ranges that hold instructions.
func (o *Object) codeSpans() []span {
	var out []span
	if o.File.HasSections {
		for _, s := range o.File.Sections {
			if s.Exec && !s.NoBits {
				out = append(out, span{s.Addr, s.Addr + s.Size})
			}
		}
		return out
	}
	for _, s := range o.File.Segments {
		if s.Flags&elf.PF_X != 0 && s.FileSize > 0 {
			out = append(out, span{s.Addr, s.Addr + s.FileSize})
		}
	}
	return out
}

// decodeAll decodes every code byte: each unwind range and each gap between
// them from its start on, then again from every target that isn't an
// instruction boundary yet (data between the instructions shifts a linear
// decode).
func (o *Object) decodeAll(ctx context.Context) error {
	for _, sp := range o.codeSpans() {
		pos := sp.lo
		i := sort.Search(len(o.File.FDEs), func(i int) bool { return o.File.FDEs[i].End > sp.lo })
		for pos < sp.hi {
			if err := ctx.Err(); err != nil {
				return err
			}
			next := sp.hi
			if i < len(o.File.FDEs) {
				e := o.File.FDEs[i]
				if e.Start <= pos {
					next = min(e.End, sp.hi)
					i++
				} else {
					next = min(e.Start, sp.hi)
				}
			}
			if next <= pos {
				continue
			}
			o.decodeRange(pos, next, false)
			pos = next
		}
	}
	done := make(bitset, len(o.bound))
	for {
		var todo []uint64
		for w := range o.targets {
			for left := o.targets[w] &^ o.bound[w] &^ done[w]; left != 0; left &= left - 1 {
				if a := o.textLo + uint64(w)<<6 + uint64(bits.TrailingZeros64(left)); o.code(a) {
					todo = append(todo, a)
				}
			}
			done[w] |= o.targets[w]
		}
		if len(todo) == 0 {
			return ctx.Err()
		}
		for _, a := range todo {
			o.decodeRange(a, o.textHi, true)
		}
	}
}

// decodeRange decodes from lo to hi. With resync it stops where it meets an
// instruction that is already known, or at an undecodable byte.
func (o *Object) decodeRange(lo, hi uint64, resync bool) {
	code := o.File.From(lo)
	if uint64(len(code)) > hi-lo {
		code = code[:hi-lo]
	}
	nonPIE := !o.File.IsPIE
	var in x86.Inst
	for p := 0; p < len(code); {
		at := lo + uint64(p)
		if resync {
			if !o.code(at) || o.bound.has(at-o.textLo) {
				return
			}
		}
		n := x86.Decode(code[p:], &in)
		if n == 0 {
			if resync {
				return
			}
			p++
			continue
		}
		o.bound.set(at - o.textLo)
		next := at + uint64(n)
		p += n
		o.instruction(at, next, &in, nonPIE)
	}
}

func (o *Object) addRef(at, to uint64, kind refKind) {
	o.refs = append(o.refs, ref{to, uint32(at - o.textLo), kind})
}

// enter notes that control comes to an address of code; start says that a
// function begins there.
func (o *Object) enter(a uint64, start bool) {
	o.targets.set(a - o.textLo)
	if start {
		o.starts.set(a - o.textLo)
	}
}

// isTarget reports whether control is known to come to an address of code.
func (o *Object) isTarget(a uint64) bool {
	return a >= o.textLo && a < o.textHi && o.targets.has(a-o.textLo)
}

// startsAt reports whether a function begins at an address.
func (o *Object) startsAt(a uint64) bool {
	return a >= o.textLo && a < o.textHi && o.starts.has(a-o.textLo)
}

// bytesPerRef is about how much code has one reference.
const bytesPerRef = 9

// instruction notes where one instruction leads.
func (o *Object) instruction(at, next uint64, in *x86.Inst, nonPIE bool) {
	if in.RIPRel {
		to := next + uint64(in.Disp)
		switch {
		case in.Map == x86.MapOne && in.Op == 0x8d && !in.Vector:
			o.addAddr(at, to, refAddr)
		case in.Map == x86.MapOne && in.Op == 0xff && (in.Reg&7 == 2 || in.Reg&7 == 4):
			o.addRef(at, to, refSlot)
		default:
			o.addRef(at, to, refLoad)
		}
	} else if nonPIE && in.IsMem() && in.HasDisp32 && in.Disp > 0 && in.Seg == 0 {
		to := uint64(in.Disp)
		if o.File.InImage(to) {
			switch {
			case in.Op == 0x8d && in.Map == x86.MapOne && !in.Vector:
				o.addAddr(at, to, refAddr)
			case in.Map == x86.MapOne && in.Op == 0xff && (in.Reg&7 == 2 || in.Reg&7 == 4) && in.Base == x86.None && in.Index == x86.None:
				o.addRef(at, to, refSlot)
			default:
				o.addRef(at, to, refLoad)
			}
		}
	}
	if in.Vector {
		return
	}
	switch in.Map {
	case x86.MapOne:
		switch op := in.Op; {
		case op == 0xe8 || op == 0xe9 || op == 0xeb || op >= 0x70 && op <= 0x7f || op >= 0xe0 && op <= 0xe3:
			o.addJump(at, next+uint64(in.Imm))
		case op == 0xff && (in.Reg&7 == 4) && !in.RIPRel:
			o.indir = append(o.indir, at)
		case op == 0xff && (in.Reg&7 == 2) && !in.RIPRel:
			o.icalls = append(o.icalls, at)
		case op == 0xcd && uint8(in.Imm) == 0x80:
			o.sites = append(o.sites, rawSite{at, SiteInt80})
		case nonPIE && (op >= 0xb8 && op <= 0xbf || op == 0xc7 || op == 0x68 || op == 0x81):
			o.immediate(at, uint64(in.Imm))
		case op >= 0xb8 && op <= 0xbf && in.OpSize == 8:
			o.immediate(at, uint64(in.Imm)) // movabs: large code model
		}
	case x86.Map0F:
		switch op := in.Op; {
		case op >= 0x80 && op <= 0x8f:
			o.addJump(at, next+uint64(in.Imm))
		case op == 0x05:
			o.sites = append(o.sites, rawSite{at, SiteSyscall})
		case op == 0x34:
			o.sites = append(o.sites, rawSite{at, SiteSysenter})
		}
	}
}

func (o *Object) addJump(at, to uint64) {
	if o.code(to) {
		o.addRef(at, to, refJump)
		o.enter(to, o.isStart(at, to))
	}
}

// isStart reports whether a jump from at makes its target a function start
// where there is no unwind entry: calls do, branches don't (they stay within
// a function, or leave it for a place that some call names as well).
func (o *Object) isStart(at, to uint64) bool {
	b := o.File.From(at)
	return len(b) > 0 && b[0] == 0xe8 && to != at+5
}

func (o *Object) addAddr(at, to uint64, kind refKind) {
	o.addRef(at, to, kind)
	if o.code(to) {
		o.enter(to, true)
	}
}

func (o *Object) immediate(at, v uint64) {
	if v < 4096 || !o.File.InImage(v) {
		return
	}
	o.addRef(at, v, refImm)
}

// intervals cuts the code into functions: unwind ranges as they are, gaps at
// every known start.
func (o *Object) intervals() {
	f := o.File
	var starts []uint64
	for w, set := range o.starts {
		for ; set != 0; set &= set - 1 {
			if a := o.textLo + uint64(w)<<6 + uint64(bits.TrailingZeros64(set)); !o.inFDE(a) {
				starts = append(starts, a)
			}
		}
	}
	cut := func(lo, hi uint64) {
		i := sort.Search(len(starts), func(i int) bool { return starts[i] > lo })
		for lo < hi {
			next := hi
			if i < len(starts) && starts[i] < hi {
				next = starts[i]
			}
			o.Facts.Funcs = append(o.Facts.Funcs, Func{Start: lo, End: next})
			lo = next
			i++
		}
	}
	for _, sp := range o.codeSpans() {
		pos := sp.lo
		i := sort.Search(len(f.FDEs), func(i int) bool { return f.FDEs[i].End > sp.lo })
		for ; i < len(f.FDEs) && f.FDEs[i].Start < sp.hi; i++ {
			e := f.FDEs[i]
			cut(pos, max(pos, e.Start))
			lo := max(e.Start, pos)
			hi := min(e.End, sp.hi)
			if hi > lo {
				o.Facts.Funcs = append(o.Facts.Funcs, Func{Start: lo, End: hi})
				pos = hi
			}
		}
		cut(pos, sp.hi)
	}
	sort.Slice(o.Facts.Funcs, func(i, j int) bool { return o.Facts.Funcs[i].Start < o.Facts.Funcs[j].Start })
}

// tailTargets cuts functions without unwind entries once more, where an
// unconditional jump of another function leads: that is how a function that
// is only ever called last is entered.
func (o *Object) tailTargets() {
	again := false
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refJump || o.startsAt(r.to) || o.inFDE(r.to) {
			continue
		}
		b := o.File.From(o.at(r))
		if len(b) == 0 || b[0] != 0xe9 && b[0] != 0xeb {
			continue
		}
		if from, to := o.FuncAt(o.at(r)), o.FuncAt(r.to); from != to && to >= 0 && o.Facts.Funcs[to].Start != r.to {
			o.enter(r.to, true)
			again = true
		}
	}
	if again {
		o.Facts.Funcs = nil
		o.intervals()
	}
}

func (o *Object) inFDE(a uint64) bool {
	fdes := o.File.FDEs
	i := sort.Search(len(fdes), func(i int) bool { return fdes[i].End > a })
	return i < len(fdes) && fdes[i].Start <= a
}

// FuncAt returns the index of the function that holds addr, -1 when none.
func (o *Object) FuncAt(addr uint64) int {
	fs := o.Facts.Funcs
	i := sort.Search(len(fs), func(i int) bool { return fs[i].End > addr })
	if i < len(fs) && fs[i].Start <= addr {
		return i
	}
	return -1
}

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
	// belongs to the section before it.
	if i > 0 && rs[i-1].End == addr {
		return i - 1
	}
	return -1
}

func (o *Object) isGOT(region int) bool {
	n := o.Facts.Regions[region].Name
	return n == ".got" || n == ".got.plt"
}

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
	b := o.File.From(addr)
	p := 0
	if len(b) >= 4 && b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && b[3] == 0xfa {
		p = 4
	}
	if len(b) > p && b[p] == 0xf2 { // bnd
		p++
	}
	if len(b) < p+6 || b[p] != 0xff || b[p+1] != 0x25 {
		return 0, false
	}
	var in x86.Inst
	n := x86.Decode(b[p:], &in)
	if n == 0 || !in.RIPRel {
		return 0, false
	}
	slot := addr + uint64(p+n) + uint64(in.Disp)
	if _, ok := o.relocAt[slot]; !ok {
		return 0, false
	}
	return slot, true
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
		if kind == EdgeRef && o.dataInText(to) {
			return
		}
		if i := o.FuncAt(to); i >= 0 {
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
	}
}

// maxBias is how far, in bytes, before an array its folded base address may
// lie ("array[i-1]" with i >= 1 addresses array-1).
const maxBias = 128

// reach adds the region of a data address, and the next one when the address
// is so near to its start that it may be its biased base.
func (o *Object) reach(fn *Func, r int, to uint64) {
	fn.Regions = append(fn.Regions, uint32(r))
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
	dataTargets := o.dataTargets()
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
			for _, r := range o.refs[from:ri] {
				if r.kind == refAddr || r.kind == refLoad || r.kind == refImm {
					o.jumpTable(fn, i, r.to, dataTargets)
				}
			}
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
			o.slot(fn, &o.File.Relocs[i], false)
			return
		}
		if o.isGOT(g) {
			// A slot without relocation: a static program's, filled by the
			// linker, or padding.
			if v, ok := o.File.U64(r.to); ok && o.File.InImage(v) && !o.File.IsPIE {
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
			if j, ok := o.relocAt[r.to]; ok && object.IsTLS(o.File.Relocs[j].Type) {
				return // the argument of __tls_get_addr
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
		o.address(fn, r.to, EdgeRef)
	case refImm:
		if o.code(r.to) {
			if r.to >= fn.Start && r.to < fn.End || !o.bound.has(r.to-o.textLo) {
				return
			}
			i := o.FuncAt(r.to)
			if i < 0 {
				return
			}
			// An immediate is an address only if it can be entered: a start,
			// or a place in code without unwind data, or one byte behind a
			// start (signal restorers, whose unwind range begins early).
			t := &o.Facts.Funcs[i]
			if r.to != t.Start && r.to != t.Start+1 && o.inFDE(r.to) && !o.isTarget(r.to) {
				return
			}
			o.address(fn, r.to, EdgeRef)
			return
		}
		o.address(fn, r.to, EdgeRef)
	}
}

// dataTargets returns the sorted addresses outside of code that some
// instruction names: a jump table ends where the next such thing begins.
func (o *Object) dataTargets() []uint64 {
	seen := make(map[uint64]struct{}, len(o.refs)/4)
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refJump && r.kind != refSlot && !o.code(r.to) {
			seen[r.to] = struct{}{}
		}
	}
	out := make([]uint64, 0, len(seen))
	for a := range seen {
		out = append(out, a)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// jumpTable reads a table of code addresses at base, relative (32 bits, to the
// table) or absolute (64 bits, in programs with fixed addresses), and notes
// those that leave the function: compilers move unlikely cases to functions of
// their own ("cold" parts).
func (o *Object) jumpTable(fn *Func, self int, base uint64, bounds []uint64) {
	reg := o.regionAt(base)
	if reg < 0 || o.isGOT(reg) {
		return
	}
	end := o.Facts.Regions[reg].End
	if i := sort.Search(len(bounds), func(i int) bool { return bounds[i] > base }); i < len(bounds) && bounds[i] < end {
		end = bounds[i]
	}
	leaves := func(t uint64) (int, bool) {
		if !o.code(t) || !o.bound.has(t-o.textLo) {
			return 0, false
		}
		i := o.FuncAt(t)
		return i, i >= 0
	}
	b := o.File.From(base)
	if uint64(len(b)) > end-base {
		b = b[:end-base]
	}
	target := func(to uint64) bool {
		i, ok := leaves(to)
		if !ok {
			return false
		}
		if i != self {
			fn.edge(i, EdgeTable)
		} else {
			o.tables[uint32(self)] = append(o.tables[uint32(self)], to)
		}
		return true
	}
	for p := 0; p+4 <= len(b); p += 4 {
		if !target(base + uint64(int64(int32(le32(b[p:]))))) {
			break
		}
	}
	if o.File.IsPIE {
		return
	}
	for p := 0; p+8 <= len(b); p += 8 {
		v, _ := o.File.U64(base + uint64(p))
		if !target(v) {
			break
		}
	}
}

// fallsThrough reports whether control can run past the end of a function. A
// call as the last instruction is one that doesn't return: compilers leave
// nothing behind a call otherwise.
func (o *Object) fallsThrough(fn *Func) bool {
	pos := fn.End
	lo := max(fn.Start, pos-min(pos, 256))
	// Find the last instruction that isn't padding, walking known boundaries.
	var in x86.Inst
	for pos > lo {
		at := pos - 1
		for at > lo && !o.bound.has(at-o.textLo) {
			at--
		}
		if at < lo || !o.bound.has(at-o.textLo) {
			return false
		}
		b := o.File.Bytes(at, fn.End-at)
		n := x86.Decode(b, &in)
		if n == 0 {
			return false
		}
		if isPadding(&in) {
			pos = at
			continue
		}
		return !terminates(&in) && !o.restorer(&in, at)
	}
	return fn.End-fn.Start <= 256 && pos == fn.Start && fn.End > fn.Start && !o.allPadding(fn)
}

// restorer reports whether an instruction is a signal restorer's system call,
// rt_sigreturn (15) with its number set right before, which never returns.
func (o *Object) restorer(in *x86.Inst, at uint64) bool {
	if in.Vector || in.Map != x86.Map0F || in.Op != 0x05 {
		return false
	}
	b := o.File.Bytes(at-7, 7) // mov $15,%rax or mov $15,%eax
	if b == nil {
		return false
	}
	return string(b) == "\x48\xc7\xc0\x0f\x00\x00\x00" || string(b[2:]) == "\xb8\x0f\x00\x00\x00"
}

// dropPadding takes the way out of functions that hold nothing but padding and
// that nothing enters, so that they don't count as callers of what follows.
func (o *Object) dropPadding() {
	fs := o.Facts.Funcs
	entered := make([]bool, len(fs))
	for i := range fs {
		for _, e := range fs[i].Edges {
			if e.Kind != EdgeFall {
				entered[e.To] = true
			}
		}
	}
	for i := range o.Facts.Regions {
		for _, f := range o.Facts.Regions[i].Funcs {
			entered[f] = true
		}
	}
	for _, f := range o.Facts.Roots {
		entered[f] = true
	}
	for i := range o.Facts.Exports {
		if f := o.Facts.Exports[i].Func; f > 0 {
			entered[f-1] = true
		}
	}
	falls := false // the function before runs on into this one
	for i := range fs {
		into := falls
		falls = len(fs[i].Edges) > 0 && slices.Contains(fs[i].Edges, Edge{uint32(i + 1), EdgeFall})
		if falls && !into && !entered[i] && o.nops(&fs[i]) {
			fs[i].Edges, falls = nil, false
		}
	}
}

// nops reports whether a function is nothing but padding.
func (o *Object) nops(fn *Func) bool {
	b := o.File.Bytes(fn.Start, fn.End-fn.Start)
	var in x86.Inst
	for len(b) > 0 {
		n := x86.Decode(b, &in)
		if n == 0 || !isPadding(&in) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (o *Object) allPadding(fn *Func) bool {
	for _, c := range o.File.Bytes(fn.Start, fn.End-fn.Start) {
		if c != 0xcc && c != 0 {
			return false
		}
	}
	return true
}

func isPadding(in *x86.Inst) bool {
	if in.Vector {
		return false
	}
	return in.Map == x86.MapOne && (in.Op == 0x90 && !in.Rep || in.Op == 0xcc || in.Op == 0 && in.Mod == 0) ||
		in.Map == x86.Map0F && in.Op == 0x1f
}

func terminates(in *x86.Inst) bool {
	if in.Vector {
		return false
	}
	switch in.Map {
	case x86.MapOne:
		switch in.Op {
		case 0xc3, 0xc2, 0xcb, 0xca, 0xcf, 0xe9, 0xeb, 0xf4, 0xcc, 0xe8:
			return true
		case 0xff:
			return in.Reg&7 == 4 || in.Reg&7 == 5 || in.Reg&7 == 2
		}
	case x86.Map0F:
		return in.Op == 0x0b || in.Op == 0xb9 || in.Op == 0xff || in.Op == 0x07
	}
	return false
}
