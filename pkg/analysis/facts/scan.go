package facts

import (
	"cmp"
	"context"
	"debug/elf"
	"fmt"
	"math/bits"
	"slices"
	"sort"

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
	refBase                    // the address is computed to find the global offset table by it
	refHeld                    // the address is computed, or read, only to call it; the calls have references of their own
	refPage                    // any address in the 4096 bytes from there on
)

// names reports whether the address itself is meant, not code that control
// goes to or what lies near it: where such a thing lies, a table before it ends.
func (k refKind) names() bool {
	return k != refJump && k != refSlot && k != refBase && k != refHeld && k != refPage
}

// ref is one address in one instruction.
type ref struct {
	to   uint64
	off  uint32 // of the instruction, from the start of the code
	kind refKind
}

func byOffset(a, b ref) int { return cmp.Compare(a.off, b.off) }

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

	mach   machine
	bound  bitset // instruction boundaries, by address - textLo
	textLo uint64
	textHi uint64
	refs   []ref // by off
	// funcIndex finds functions by address.
	funcIndex []uint32
	sites     []rawSite
	indir     []uint64 // addresses of computed jumps (not calls)
	icalls    []uint64
	wides     []wideImm           // 64-bit immediates, until they are looked at
	named     []uint64            // addresses that code or data names, sorted
	tabled    map[uint64][]entry  // addresses of data to where the words of a table there lead
	objects   map[uint64][]uint64 // addresses of data to those to which the words of a table there lead
	targets   bitset              // known targets, by address - textLo: where code is entered
	starts    bitset              // those of them at which a function begins
	relocAt   map[uint64]int      // address of a slot to its index in File.Relocs
	imports   map[int32]uint32    // index of a dynamic symbol to that of an import
	strIdx    map[string]uint32
	entries   map[uint32][]uint64 // function index to entries that aren't its start
	tables    map[uint32][]uint64 // function index to targets of its jump tables inside of it
	callers   map[uint32][]uint32 // function index to functions with an EdgeCall to it
	returns   map[uint64]bool     // function starts to whether they can return
	probed    map[uint64]bool     // addresses in gaps to whether they hold data
	seen      *probe              // what one look at code in a gap came through
	probing   []uint64            // what it has still to look at
	pointed   []uint64            // addresses of data that lie in data, sorted; nil until asked
	asked     map[atom]struct{}   // variables that the present question went through
	shallow   bool                // whether values of variables don't matter
	codeSize  int                 // bytes of executable segments in the file
	budget    int                 // instructions that may still be interpreted
	argSteps  int                 // how many were interpreted for arguments
	refd      map[uint32]bool     // functions that more than direct calls can enter
	held      map[uint64]struct{} // addresses inside of functions that something keeps
	twice     map[uint64]bool     // functions to whether they return twice; key: as of nameAt
	via       map[viaSite]passedState
	// branchTables holds the tables that computed jumps go through, where they
	// are found by following addresses; key: address of the jump.
	branchTables map[uint64][]branchTable
	// goText is where the code of Go begins, as its tables count, and goSpan is
	// where its functions lie: from the first to the last of them.
	goText    uint64
	goTab     []goFunc // of Go's function table, until their names are read
	goSpan    span
	gateCalls map[uint64]bool // calls of the kernel's way in through a variable, by address
	failed    error           // why the code can't be followed
	// pops keeps what functions take from their callers' stacks, in bytes; key:
	// where they begin.
	pops map[uint64]int64
	// gots are the addresses that 32-bit code adds offsets to: of the global
	// offset table.
	gots []uint64
	// callbacks tells of functions that read a number behind a pointer when
	// they are called back whether all who pass them are known.
	callbacks map[uint32]bool
}

type bitset []uint64

func (b bitset) set(i uint64) { b[i>>6] |= 1 << (i & 63) }

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
	return BuildIn(ctx, f, &Scratch{})
}

// BuildIn is Build in memory that may be used again, once the object is
// released.
func BuildIn(ctx context.Context, f *object.File, s *Scratch) (*Object, error) {
	o := &Object{File: f, Facts: &Facts{
		Machine: f.Machine, Class: f.Class, Size: int64(len(f.Data)),
		Interp: f.Interp, Soname: f.Soname, RPath: f.RPath, RunPath: f.RunPath, Needed: f.Needed,
		NoDefLib: f.Flags1&FlagNoDefLib != 0, Go: f.GoPCLN[1] > 0, IsPIE: f.IsPIE, Warnings: f.Warnings,
	}}
	if o.mach = machineOf(f.Machine, f.Class); o.mach == nil {
		return o, nil
	}
	if err := o.build(ctx, s); err != nil {
		return nil, err
	}
	o.Facts.index()
	return o, nil
}

func (o *Object) build(ctx context.Context, s *Scratch) error {
	f := o.File
	o.textLo, o.textHi = ^uint64(0), 0
	for _, seg := range f.Segments {
		if seg.Flags&elf.PF_X != 0 && seg.FileSize > 0 {
			o.textLo, o.textHi = min(o.textLo, seg.Addr), max(o.textHi, seg.Addr+seg.FileSize)
			o.codeSize += int(seg.FileSize)
		}
	}
	if o.textHi <= o.textLo {
		return nil
	}
	if o.textHi-o.textLo > maxSpan+spanPerByte*uint64(len(f.Data)) {
		return fmt.Errorf("%w: executable segments lie too far apart", object.ErrMalformed)
	}
	words := int((o.textHi-o.textLo)>>6 + 1)
	o.bound, o.targets, o.starts = s.bitset(0, words), s.bitset(1, words), s.bitset(2, words)
	o.refs = s.references(o.codeSize / bytesPerRef)
	o.relocAt = make(map[uint64]int, len(f.Relocs))
	for i := range f.Relocs {
		o.relocAt[f.Relocs[i].Addr] = i
	}
	o.imports = map[int32]uint32{}
	o.strIdx = map[string]uint32{}
	o.entries = map[uint32][]uint64{}
	o.tables = map[uint32][]uint64{}
	o.budget = o.fullBudget()
	o.seedStarts()
	if err := o.decodeAll(ctx); err != nil {
		return err
	}
	o.sortRefs()
	if err := o.decodeHeld(ctx); err != nil {
		return err
	}
	if len(o.wides) > 0 {
		o.largeModel()
		if err := o.decodeTargets(ctx); err != nil {
			return err
		}
		o.sortRefs()
	}
	if m, ok := o.mach.(gated); ok {
		m.gates(o)
	}
	sort.Slice(o.sites, func(i, j int) bool { return o.sites[i].at < o.sites[j].at })
	sort.Slice(o.indir, func(i, j int) bool { return o.indir[i] < o.indir[j] })
	o.intervals()
	o.tailTargets()
	if o.relativeTables() {
		o.intervals()
	}
	o.regions()
	o.heldCalls()
	o.attribute()
	o.data()
	o.exports()
	o.roots()
	o.dropPadding()
	o.bases()
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
	if o.mach.addresses(o); o.failed != nil {
		return o.failed
	}
	return o.decodeTargets(ctx)
}

func (o *Object) sortRefs() {
	if !slices.IsSortedFunc(o.refs, byOffset) {
		slices.SortStableFunc(o.refs, byOffset)
	}
}

// decodeTargets decodes from every known target that isn't an instruction
// boundary yet.
func (o *Object) decodeTargets(ctx context.Context) error {
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
	step := o.mach.abi().step
	for p := 0; p < len(code); {
		at := lo + uint64(p)
		if resync {
			if !o.code(at) || o.bound.has(at-o.textLo) {
				return
			}
		}
		n := o.mach.scan(o, at, code[p:])
		if n == 0 {
			if resync {
				return
			}
			p += step
			continue
		}
		o.bound.set(at - o.textLo)
		p += n
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

// Executable segments may lie so many bytes apart, and so many more for each
// byte of the file: what is kept of addresses takes memory for all between them.
const (
	maxSpan     = 256 << 20
	spanPerByte = 4
)

const (
	// bytesPerRef is about how much code has one reference.
	bytesPerRef = 13
	// refSize is the size of a reference, in bytes.
	refSize = 16
)

// instruction notes where one instruction leads. The forms of additions that
// have no register but the accumulator come where a function adds the address of
// a table to what another returned.
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
		case nonPIE && (op >= 0xb8 && op <= 0xbf || op == 0xc7 || op == 0x68 || op == 0x81 || op == 0x05 || op == 0x0d || op == 0x2d):
			o.immediate(at, uint64(in.Imm))
			if op >= 0xb8 && op <= 0xbf && in.OpSize == 8 {
				o.wide(at, in.Imm)
			}
		case op >= 0xb8 && op <= 0xbf && in.OpSize == 8:
			o.immediate(at, uint64(in.Imm)) // movabs: large code model
			o.wide(at, in.Imm)
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
	f := o.mach.flow(at, o.File.From(at))
	return f.kind == ctlCall && to != at+uint64(f.n)
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
