package facts

import (
	"cmp"
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/arm64"
)

// A64 code makes addresses in steps: the page first, then the place in it,
// which other instructions may share, far behind and in other blocks. What
// registers hold of that is followed through the whole text: what is computed
// from a page is a reference then, and what can't be followed counts as one to
// the whole page.

// knownKind says what is known of a register.
type knownKind uint8

const (
	kPage   knownKind = iota + 1 // addr is a page, made by the instruction at from
	kAddr                        // it holds addr
	kConst                       // it holds addr, perhaps in part
	kEntry                       // it holds an entry of the table at addr
	kTarget                      // it holds anchor plus an entry of the table at addr
)

// known is one thing that a register can hold.
type known struct {
	kind  knownKind
	reg   uint8
	local bool // made in the block that is looked at
	entry tableEntry
	addr  uint64
	from  uint32 // of a place: how it was made from another, 0 when it wasn't
}

// tableEntry says how the entries of a jump table are read.
type tableEntry struct {
	anchor uint64 // what distances are added to
	size   uint8  // bytes
	shift  uint8
	signed bool
}

// branchTable is a table that a computed jump goes through.
type branchTable struct {
	addr uint64
	tableEntry
}

// maxBranches bounds the entries of a table whose length isn't known.
const maxBranches = 1024

// jumpThrough is a computed jump through a table.
type jumpThrough struct {
	at uint64
	branchTable
}

// deferred is a jump through a table whose length isn't known before all code
// was looked at, and what is known where it jumps.
type deferred struct {
	jumpThrough
	cur []known
}

// maxKnown bounds the pages that one register can hold, maxPlaces the places:
// those were noted when they were made, and are followed for what is exact alone.
const (
	maxKnown  = 8
	maxPlaces = 2
)

// addressFlow follows addresses through the code of an object.
type addressFlow struct {
	o      *Object
	in     map[uint64][]known // at the starts of blocks
	queue  []uint64
	queued map[uint64]bool
	again  bool // blocks are looked at for a second time
	failed bool // not all was followed
	used   bitset
	pages  []ref // the instructions that make pages
	first  []ref // references by address
	later  []ref // references that were found at a second look
	pool   map[int][]known
	orphan map[int][]uint64
	fde    int
	tables map[jumpThrough][]uint64 // their targets
	// bounds are addresses of data that code names, sorted: a table ends at the
	// next one.
	bounds   []uint64
	deferred []deferred
}

func (aarch64) addresses(o *Object) {
	f := &addressFlow{
		o: o, in: map[uint64][]known{}, queued: map[uint64]bool{}, used: make(bitset, len(o.bound)),
		pool: map[int][]known{}, orphan: map[int][]uint64{}, tables: map[jumpThrough][]uint64{},
	}
	o.branchTables = map[uint64][]branchTable{}
	for _, sp := range o.codeSpans() {
		f.span(sp)
	}
	f.again = true
	f.bounds = dataTargets(o, f.first)
	for _, d := range f.deferred {
		for _, to := range f.targets(d.at, d.branchTable) {
			f.flow(to, d.cur)
		}
	}
	f.drain()
	f.orphans()
	for _, p := range f.pages {
		if f.failed || !f.used.has(uint64(p.off)) {
			f.later = append(f.later, ref{p.to, p.off, refPage})
		}
	}
	f.merge()
}

// span looks at a range of code once from its start to its end.
func (f *addressFlow) span(sp span) {
	code := f.o.File.From(sp.lo)
	code = code[:min(uint64(len(code)), sp.hi-sp.lo)]
	var cur []known
	var in arm64.Inst
	ended := true
	called := false
	for p := int((4 - sp.lo&3) & 3); p+4 <= len(code); p += 4 {
		at := sp.lo + uint64(p)
		if called && f.begins(at) {
			cur = cur[:0] // the call before doesn't return
		}
		if f.o.targets.has(at - f.o.textLo) {
			f.flow(at, cur)
			cur = cur[:0]
		} else if ended {
			f.setFDE(at)
			if f.fde >= 0 {
				f.orphan[f.fde] = append(f.orphan[f.fde], at)
			}
		}
		if !decodeA64(at, code[p:], &in) {
			cur, ended = cur[:0], true
			continue
		}
		if in.Op == arm64.ADRP && in.Rd == 16 {
			if n := f.stub(at, code[p:]); n > 0 {
				p += n - 4
				cur, ended = cur[:0], true
				continue
			}
		}
		cur, ended = f.step(at, code[p:], &in, cur)
		if ended {
			cur = cur[:0]
		}
		called = in.Op == arm64.BL || in.Op == arm64.BLR
	}
}

// stub takes a stub of the procedure linkage table for one instruction: it
// returns its length in bytes, 0 when there is none.
func (f *addressFlow) stub(at uint64, code []byte) int {
	slot, n, ok := pltStub(at, code)
	if !ok {
		return 0
	}
	if _, ok := f.o.relocAt[slot]; ok {
		f.ref(at+uint64(n)-4, slot, refSlot)
	}
	return n
}

func (f *addressFlow) drain() {
	var in arm64.Inst
	var cur []known
	for len(f.queue) > 0 {
		at := f.queue[len(f.queue)-1]
		f.queue = f.queue[:len(f.queue)-1]
		f.queued[at] = false
		cur = append(cur[:0], f.in[at]...)
		code := f.o.File.From(at)
		p, called := 0, false
		for ; len(cur) > 0 && p+4 <= len(code); p += 4 {
			here := at + uint64(p)
			if p > 0 && called && f.begins(here) {
				break
			}
			if p > 0 && f.o.targets.has(here-f.o.textLo) {
				f.flow(here, cur)
				break
			}
			if !f.o.code(here) || !decodeA64(here, code[p:], &in) {
				break
			}
			called = in.Op == arm64.BL || in.Op == arm64.BLR
			var ended bool
			if cur, ended = f.step(here, code[p:], &in, cur); ended {
				break
			}
		}
		if !f.o.spend(1 + p/(4*lookCost)) {
			f.failed = true
			return
		}
	}
}

// orphans gives the blocks that no branch leads to, landing pads and targets of
// jumps that aren't understood, what callee-saved registers hold anywhere in
// their function.
func (f *addressFlow) orphans() {
	for range 4 {
		for i, pool := range f.pool {
			for _, at := range f.orphan[i] {
				f.flow(at, pool)
			}
		}
		clear(f.pool)
		if len(f.queue) == 0 {
			return
		}
		f.drain()
	}
}

// begins reports whether a function with an unwind entry begins at an address.
func (f *addressFlow) begins(at uint64) bool {
	f.setFDE(at)
	return f.fde >= 0 && f.o.File.FDEs[f.fde].Start == at
}

// setFDE finds the unwind entry of an address, -1 when there is none.
func (f *addressFlow) setFDE(at uint64) {
	fdes := f.o.File.FDEs
	if f.fde >= 0 && f.fde < len(fdes) && fdes[f.fde].Start <= at && at < fdes[f.fde].End {
		return
	}
	f.fde = sort.Search(len(fdes), func(i int) bool { return fdes[i].End > at })
	if f.fde >= len(fdes) || fdes[f.fde].Start > at {
		f.fde = -1
	}
}

// flow adds what is known at the end of a block to what is known at another's
// start.
func (f *addressFlow) flow(to uint64, cur []known) {
	if len(cur) == 0 || !f.o.code(to) {
		return
	}
	in := f.in[to]
	changed := false
	for _, k := range cur {
		if k.kind == kConst || k.kind == kAddr && k.from != 0 {
			continue
		}
		k.local = false
		n, limit, have := 0, maxPlaces, false
		if k.kind == kPage {
			limit = maxKnown
		}
		for i := range in {
			if in[i].reg == k.reg && in[i].kind == k.kind {
				n++
				have = have || in[i] == k
			}
		}
		if !have && n < limit {
			in, changed = append(in, k), true
		}
	}
	if changed {
		f.in[to] = in
		if !f.queued[to] {
			f.queued[to] = true
			f.queue = append(f.queue, to)
		}
	}
}

func (f *addressFlow) ref(at, to uint64, kind refKind) {
	r := ref{to, uint32(at - f.o.textLo), kind}
	if f.again {
		f.later = append(f.later, r)
	} else {
		f.first = append(f.first, r)
	}
	if kind == refAddr && f.o.code(to) {
		f.o.enter(to, true)
	}
}

// whole counts a page as referred to as a whole.
func (f *addressFlow) whole(k known) {
	f.used.set(uint64(k.from))
	f.later = append(f.later, ref{k.addr, k.from, refPage})
}

// escapes notes that a register is used in a way that isn't followed.
func (f *addressFlow) escapes(cur []known, regs ...uint8) {
	for i := range cur {
		if cur[i].kind == kPage && slices.Contains(regs, cur[i].reg) {
			f.whole(cur[i])
		}
	}
}

// place notes what an instruction refers to that adds a constant to a register.
func (f *addressFlow) place(at uint64, k *known, imm int64, kind refKind) uint64 {
	to := k.addr + uint64(imm)
	if k.kind == kPage {
		f.used.set(uint64(k.from))
	}
	if !k.local || !f.again {
		f.ref(at, to, kind)
	}
	return to
}

const calleeSavedA64 = 0x1ff80000 // x19 to x28

// step applies one instruction, and reports whether the block ends with it.
func (f *addressFlow) step(at uint64, code []byte, in *arm64.Inst, cur []known) ([]known, bool) {
	if len(cur) == 0 {
		switch in.Op {
		case arm64.ADRP, arm64.ADR, arm64.Literal, arm64.MOVZ, arm64.MOVN:
		case arm64.BR, arm64.B, arm64.RET, arm64.Trap, arm64.Break, arm64.Privileged:
			return cur, true
		default:
			return cur, false
		}
	}
	switch in.Op {
	case arm64.B, arm64.BCond, arm64.CBZ, arm64.CBNZ, arm64.TBZ, arm64.TBNZ:
		f.branch(at, at+uint64(in.Imm), in.Op == arm64.B, cur)
		return cur, in.Op == arm64.B
	case arm64.RET, arm64.Trap, arm64.Break, arm64.Privileged:
		return cur, true
	case arm64.BR:
		f.computed(at, in.Rn, cur)
		return cur, true
	case arm64.BL, arm64.BLR:
		cur = kept(cur, calleeSavedA64)
		f.keep(at, cur)
		return cur, false
	}
	return f.value(at, in, cur), false
}

// kept returns what is known of some registers.
func kept(cur []known, regs uint32) []known {
	out := cur[:0]
	for _, k := range cur {
		if regs>>k.reg&1 != 0 {
			out = append(out, k)
		}
	}
	return out
}

// keep adds pages to what orphans of the function may find.
func (f *addressFlow) keep(at uint64, cur []known) {
	found := false
	for i := range cur {
		if cur[i].kind != kPage {
			continue
		}
		if !found {
			f.setFDE(at)
			found = true
		}
		k := cur[i]
		k.local = false
		if f.fde >= 0 && !slices.Contains(f.pool[f.fde], k) && len(f.pool[f.fde]) < 64 {
			f.pool[f.fde] = append(f.pool[f.fde], k)
		}
	}
}

// branch flows to the target of a direct one. Beyond a call at the end of a
// function only pages and what a callee saves can matter, when the target is a
// part of the function that was moved away.
func (f *addressFlow) branch(at, to uint64, always bool, cur []known) {
	if len(cur) == 0 {
		return
	}
	if always && f.o.startsAt(to) {
		cur = slices.DeleteFunc(slices.Clone(cur), func(k known) bool { return k.kind != kPage && calleeSavedA64>>k.reg&1 == 0 })
	}
	f.flow(to, cur)
}

// computed notes the tables of a computed jump, and flows to their targets.
func (f *addressFlow) computed(at uint64, reg uint8, cur []known) {
	known := false
	for _, k := range cur {
		if k.reg != reg || k.kind != kTarget && (k.kind != kEntry || k.entry.size != 8) {
			continue
		}
		known = true
		t := branchTable{k.addr, k.entry}
		if !slices.Contains(f.o.branchTables[at], t) {
			f.o.branchTables[at] = append(f.o.branchTables[at], t)
		}
		rest := kept(slices.Clone(cur), ^(uint32(1) << reg))
		if !f.again {
			f.deferred = append(f.deferred, deferred{jumpThrough{at, t}, rest})
			continue
		}
		for _, to := range f.targets(at, t) {
			f.flow(to, rest)
		}
		f.o.spend(len(f.targets(at, t)) * len(rest) / lookCost)
	}
	if !known {
		f.keep(at, cur)
	}
}

// targets lists the places in its own function that a jump can go to through a
// table, and perhaps others: how long the table is isn't known here.
func (f *addressFlow) targets(at uint64, t branchTable) []uint64 {
	key := jumpThrough{at, t}
	if list, ok := f.tables[key]; ok {
		return list
	}
	f.setFDE(at)
	var list []uint64
	n := 0
	end := t.addr + 1<<16
	if i := sort.Search(len(f.bounds), func(i int) bool { return f.bounds[i] > t.addr }); i < len(f.bounds) {
		end = min(end, f.bounds[i])
	}
	f.o.tableTargets(&t, end, func(to uint64) bool {
		if f.fde >= 0 && (to < f.o.File.FDEs[f.fde].Start || to >= f.o.File.FDEs[f.fde].End) {
			return false
		}
		list = append(list, to)
		n++
		return n < maxBranches
	})
	f.o.spend(n / lookCost)
	list = uniq(list)
	f.tables[key] = list
	return list
}

// tableTargets reads the targets of a jump table until end, where one isn't
// code, or visit returns false.
func (o *Object) tableTargets(t *branchTable, end uint64, visit func(to uint64) bool) {
	b := o.File.From(t.addr)
	b = b[:min(uint64(len(b)), end-t.addr, 1<<16)]
	for p := 0; p+int(t.size) <= len(b); p += int(t.size) {
		var to uint64
		switch t.size {
		case 1:
			to = uint64(b[p])
			if t.signed {
				to = uint64(int64(int8(b[p])))
			}
		case 2:
			v := uint16(b[p]) | uint16(b[p+1])<<8
			to = uint64(v)
			if t.signed {
				to = uint64(int64(int16(v)))
			}
		case 4:
			to = uint64(le32(b[p:]))
			if t.signed {
				to = uint64(int64(int32(le32(b[p:]))))
			}
		case 8:
			at := t.addr + uint64(p)
			to, _ = o.File.U64(at)
			if i, ok := o.relocAt[at]; ok && o.File.Relocs[i].Sym < 0 {
				to = o.File.Relocs[i].Addend
			}
		default:
			return
		}
		if to = t.anchor + to<<t.shift; to&3 != 0 || !o.code(to) || !visit(to) {
			return
		}
	}
}

// value applies an instruction that computes or moves something.
func (f *addressFlow) value(at uint64, in *arm64.Inst, cur []known) []known {
	n := len(cur)
	made := [2 * maxKnown]known{}
	out := made[:0]
	add := func(k known) {
		if k.reg = in.Rd; k.reg < 31 && len(out) < cap(out) {
			out = append(out, k)
		}
	}
	switch in.Op {
	case arm64.ADRP, arm64.ADR:
		if !makesPage(at, in) {
			add(known{kind: kAddr, addr: pageOf(at, in), local: true})
			break
		}
		page := pageOf(at, in)
		if !f.again {
			f.pages = append(f.pages, ref{page, uint32(at - f.o.textLo), refPage})
		}
		add(known{kind: kPage, addr: page, from: uint32(at - f.o.textLo), local: true})
	case arm64.MOVZ, arm64.MOVN, arm64.MOVK:
		f.constant(at, in, cur, add)
	case arm64.Literal:
		if v, ok := f.o.File.U64(at + uint64(in.Imm)); ok && in.Size == 8 && !f.o.File.IsPIE && v >= 4096 && f.o.File.InImage(v) {
			add(known{kind: kAddr, addr: v, local: true})
		}
	case arm64.ADD, arm64.SUB:
		f.sum(at, in, cur, add)
	case arm64.SBFM, arm64.UBFM:
		for _, k := range cur {
			if k.reg == in.Rn && k.kind == kEntry && in.Amount == 0 && in.Imm >= int64(k.entry.size)*8-1 {
				if in.Op == arm64.SBFM && in.Imm == int64(k.entry.size)*8-1 {
					k.entry.signed = true
				}
				add(k)
			}
		}
		f.escapes(cur, in.Rn)
	case arm64.ORR:
		if in.Rn == arm64.ZR && in.Rm != arm64.None && in.Amount == 0 && in.Wide {
			for _, k := range cur {
				if k.reg == in.Rm {
					add(k)
				}
			}
			break
		}
		f.escapes(cur, in.Rn, in.Rm)
	case arm64.CSEL:
		for _, k := range cur {
			if k.reg == in.Rn || k.reg == in.Rm {
				add(k)
			}
		}
	case arm64.Load, arm64.Store, arm64.Atomic, arm64.StoreX, arm64.Blocks:
		f.memory(at, in, cur, add)
	case arm64.Hint:
		if in.Rn != arm64.None && in.Size > 0 {
			f.memory(at, in, cur, func(known) {})
		}
	default:
		f.escapes(cur, in.Rn, in.Rm, in.Ra)
	}
	writes := in.Writes()
	res := cur[:0]
	for _, k := range cur[:n] {
		if writes>>k.reg&1 == 0 {
			res = append(res, k)
		}
	}
	for _, k := range out {
		if !slices.Contains(res, k) {
			res = append(res, k)
		}
	}
	return res
}

// constant follows the steps of a constant, which may be an address in a
// program with fixed ones.
func (f *addressFlow) constant(at uint64, in *arm64.Inst, cur []known, add func(known)) {
	if f.o.File.IsPIE {
		return
	}
	if in.Op != arm64.MOVK {
		if v := uint64(in.Imm); in.Op == arm64.MOVZ {
			f.immediate(at, v, true)
			add(known{kind: kConst, addr: v, local: true})
		}
		return
	}
	for _, k := range cur {
		if k.reg == in.Rd && k.kind == kConst {
			k.addr = k.addr&^(0xffff<<in.Amount) | uint64(in.Imm)
			f.immediate(at, k.addr, k.local)
			add(k)
		}
	}
}

func (f *addressFlow) immediate(at, v uint64, local bool) {
	if v >= 4096 && f.o.File.InImage(v) && (!local || !f.again) {
		f.ref(at, v, refImm)
	}
}

// sum follows additions.
func (f *addressFlow) sum(at uint64, in *arm64.Inst, cur []known, add func(known)) {
	if in.Rm == arm64.None {
		imm := in.Imm
		if in.Op == arm64.SUB {
			imm = -imm
		}
		for i := range cur {
			k := &cur[i]
			if k.reg != in.Rn {
				continue
			}
			switch k.kind {
			case kPage:
				add(known{kind: kAddr, addr: f.place(at, k, imm, refAddr), local: k.local})
			case kAddr:
				add(known{kind: kAddr, addr: k.addr + uint64(imm), from: 1, local: k.local})
			}
		}
		return
	}
	f.escapes(cur, in.Rn, in.Rm)
	if in.Op == arm64.SUB {
		return
	}
	for _, e := range cur {
		if e.kind != kEntry || e.reg != in.Rm && e.reg != in.Rn {
			continue
		}
		for _, a := range cur {
			if a.kind != kAddr || a.reg == e.reg || a.reg != in.Rn && a.reg != in.Rm || e.reg == in.Rn && in.Amount != 0 {
				continue
			}
			t := e
			t.kind, t.entry.anchor, t.entry.shift = kTarget, a.addr, in.Amount
			t.local = e.local && a.local
			switch {
			case in.Shift == arm64.SXTB && e.entry.size == 1, in.Shift == arm64.SXTH && e.entry.size == 2, in.Shift == arm64.SXTW && e.entry.size == 4:
				t.entry.signed = true
			}
			add(t)
		}
	}
}

// memory follows the address of a load or store.
func (f *addressFlow) memory(at uint64, in *arm64.Inst, cur []known, add func(known)) {
	// Compilers spill a page to the stack to use it for the same symbol again.
	if in.Op == arm64.Store && !in.Vector && in.Rn != arm64.SP && in.Rn != 29 {
		f.escapes(cur, in.Rd, in.Ra)
	}
	for i := range cur {
		k := &cur[i]
		switch {
		case k.reg == in.Rm && k.kind == kPage:
			f.whole(*k)
		case k.reg != in.Rn:
		case in.Mode == arm64.Register:
			if k.kind == kPage {
				f.whole(*k)
			}
			if k.kind == kAddr && in.Op == arm64.Load && !in.Vector && in.Ra == arm64.None {
				add(known{kind: kEntry, addr: k.addr, entry: tableEntry{size: in.Size, signed: in.Signed}, local: k.local})
			}
		case k.kind == kPage || k.kind == kAddr:
			imm := in.Imm
			if in.Mode == arm64.Post {
				imm = 0
			}
			f.place(at, k, imm, refLoad)
		}
	}
}

// merge puts the references found here among those of single instructions.
func (f *addressFlow) merge() {
	order := func(a, b ref) int {
		return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.to, b.to), cmp.Compare(a.kind, b.kind))
	}
	list := append(f.first, f.later...)
	slices.SortFunc(list, order)
	list = slices.Compact(list)
	o := f.o
	if !slices.IsSortedFunc(o.refs, order) {
		slices.SortFunc(o.refs, order)
	}
	out := make([]ref, 0, len(o.refs)+len(list))
	i := 0
	for _, r := range o.refs {
		for ; i < len(list) && list[i].off < r.off; i++ {
			out = append(out, list[i])
		}
		out = append(out, r)
	}
	o.refs = append(out, list[i:]...)
}

// jumpTables reads the tables that a function's computed jumps go through.
// Entries of one or two bytes can't lead out of what was compiled as a whole.
func (aarch64) jumpTables(o *Object, fn *Func, self int, refs []ref, bounds []uint64) {
	i := sort.Search(len(o.indir), func(i int) bool { return o.indir[i] >= fn.Start })
	for ; i < len(o.indir) && o.indir[i] < fn.End; i++ {
		tables, ok := o.branchTables[o.indir[i]]
		if !ok {
			for _, r := range refs {
				if r.kind == refAddr {
					o.jumpTable(fn, self, r.to, bounds)
				}
			}
			continue
		}
		for k := range tables {
			o.branchTable(fn, self, &tables[k], bounds)
		}
	}
}

func (o *Object) branchTable(fn *Func, self int, t *branchTable, bounds []uint64) {
	reg := o.regionAt(t.addr)
	if reg < 0 {
		return
	}
	o.tableTargets(t, upTo(bounds, t.addr, o.Facts.Regions[reg].End), func(to uint64) bool {
		i := o.FuncAt(to)
		switch {
		case i < 0 || !o.bound.has(to-o.textLo) || i != self && o.stubs(i):
			return false
		case i == self:
			o.tables[uint32(self)] = append(o.tables[uint32(self)], to)
		case t.size < 4 && o.inFDE(fn.Start):
			return false
		default:
			fn.edge(i, EdgeTable)
		}
		return true
	})
}
