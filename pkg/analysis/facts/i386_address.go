package facts

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// Position-independent 32-bit code finds out where it is by a call (of a
// function that returns its return address, or of the next instruction), adds a
// constant to that, which gives mostly the address of the global offset table,
// and names everything else by its distance from there. Which registers and
// places on the stack hold such an address is followed through all code: what
// may hold one counts. Where the way to a piece of code isn't seen (landing
// pads, jumps that aren't understood), everything may.

// holdsKind says what a register or a place on the stack holds.
type holdsKind uint8

const (
	holdsBase   holdsKind = iota + 1 // addr, or addr and something added: others are named by it
	holdsPlace                       // addr: of the instruction behind a call, to which something is added first
	holdsTable                       // addr: of something that is named, perhaps a table
	holdsEntry                       // an entry of the table at addr
	holdsTarget                      // anchor plus an entry of the table at addr
	holdsStack                       // an address on the stack: off bytes from addr, which names a frame
	holdsOther                       // one of several
)

// holds is what a register or a place on the stack holds; the zero value is
// anything else.
type holds struct {
	kind         holdsKind
	addr, anchor uint32
	off          int32
}

// kept32 is a place on the stack that holds an address.
type kept32 struct {
	frame uint32
	off   int32
	v     holds
}

// maxKept bounds those places.
const maxKept = 16

// addresses32 is what is known at one instruction.
type addresses32 struct {
	regs [8]holds
	kept []kept32 // never changed in place
	// any is set when any word of the stack may hold the table's address.
	any bool
}

// flow32 follows addresses through the code of an object.
type flow32 struct {
	o        *Object
	in       map[uint64]*addresses32 // at the starts of blocks
	queue    []uint64
	queued   map[uint64]bool
	seen     bitset // instructions that were reached
	got      uint32 // the address that is computed most often, 0 when none is
	noted    map[ref]bool
	slots    map[uint64]bool // jumps and calls through slots that are known
	uneven   map[int]bool    // unwind ranges whose stack pointer isn't where it should be at a return
	conflict string
}

// errText is why an object isn't followed.
var errText = errors.New("its code is changed by the loader (text relocations)")

func (i386) addresses(o *Object) {
	for i := range o.File.Relocs {
		if r := &o.File.Relocs[i]; r.Type != object.ROther && o.code(r.Addr) {
			o.failed = fmt.Errorf("%w at %#x", errText, r.Addr)
			return
		}
	}
	o.branchTables = map[uint64][]branchTable{}
	f := &flow32{
		o: o, in: map[uint64]*addresses32{}, queued: map[uint64]bool{}, seen: make(bitset, len(o.bound)),
		noted: map[ref]bool{}, slots: map[uint64]bool{}, uneven: map[int]bool{},
	}
	if f.bases(); f.got == 0 {
		return // nothing is named in this way
	}
	f.entries()
	f.orphans()
	f.orphans() // what those lead to
	f.mistaken()
	if f.conflict != "" {
		o.failed = errors.New(f.conflict)
	}
	o.indir = slices.DeleteFunc(o.indir, func(at uint64) bool { return f.slots[at] })
	o.icalls = slices.DeleteFunc(o.icalls, func(at uint64) bool { return f.slots[at] })
}

// bases finds the addresses that are computed from where code is.
func (f *flow32) bases() {
	o := f.o
	count := map[uint32]int{}
	var in x86.Inst
	for _, sp := range o.codeSpans() {
		code := o.File.Bytes(sp.lo, sp.hi-sp.lo)
		for at := sp.lo; at < sp.hi; at++ {
			if !o.bound.has(at-o.textLo) || code[at-sp.lo] != 0xe8 {
				continue
			}
			n := x86.Decode32(code[at-sp.lo:], &in)
			if n != 5 {
				continue
			}
			next := at + 5
			rest := code[next-sp.lo:]
			if _, ok := o.pcThunk(uint64(uint32(next + uint64(in.Imm)))); !ok {
				if in.Imm != 0 || len(rest) == 0 || rest[0]&0xf8 != 0x58 {
					continue
				}
				rest = rest[1:]
			}
			if x86.Decode32(rest, &in) > 0 && !in.Vector && in.Map == x86.MapOne && in.ImmSize == 4 && (in.Op == 0x81 && in.Reg == 0 && in.Mod == 3 || in.Op == 0x05) {
				count[uint32(next)+uint32(in.Imm)]++
			}
		}
	}
	for _, a := range sortedAddresses(count) {
		if f.got == 0 || count[a] > count[f.got] {
			f.got = a
		}
	}
	if f.got == 0 && o.File.IsPIE {
		f.got = o.statedGOT()
	}
	if f.got != 0 {
		o.gots = []uint64{uint64(f.got)}
	}
}

// statedGOT is where the file says that the global offset table is, 0 when it
// doesn't: the table's address is that of its part for functions, if it has one.
func (o *Object) statedGOT() uint32 {
	if v, ok := o.File.Dynamic(elf.DT_PLTGOT); ok {
		return uint32(v)
	}
	for _, name := range []string{".got.plt", ".got"} {
		for _, s := range o.File.Sections {
			if s.Name == name {
				return uint32(s.Addr)
			}
		}
	}
	return 0
}

func sortedAddresses(m map[uint32]int) []uint32 {
	out := make([]uint32, 0, len(m))
	for a := range m {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

// entry32 is what is known where a function begins.
func entry32() *addresses32 {
	s := &addresses32{}
	s.regs[x86.RSP] = holds{kind: holdsStack}
	return s
}

// entries follows all functions from their beginnings, those included that are
// found by the way.
func (f *flow32) entries() {
	o := f.o
	fdes := o.File.FDEs
	for i := range fdes {
		if a := fdes[i].Start; o.code(a) && (o.startsAt(a) || !o.isTarget(a)) {
			f.flow(a, entry32())
		}
	}
	for {
		f.drain()
		_ = o.decodeTargets(context.Background())
		for a := o.textLo; a < o.textHi; a++ {
			if w := a - o.textLo; o.starts[w>>6] == 0 {
				a = o.textLo + (w | 63)
				continue
			}
			if o.startsAt(a) && f.in[a] == nil && o.bound.has(a-o.textLo) && o.code(a) {
				f.flow(a, entry32())
			}
		}
		if len(f.queue) == 0 {
			return
		}
	}
}

// orphans follows the code that nothing was seen to reach.
func (f *flow32) orphans() {
	o := f.o
	for _, sp := range o.codeSpans() {
		for at := sp.lo; at < sp.hi; at++ {
			w := at - o.textLo
			if !o.bound.has(w) || f.seen.has(w) {
				continue
			}
			code := o.File.From(at)
			if n := o.mach.padding(code); n > 0 {
				at += uint64(n) - 1
				continue
			}
			s := &addresses32{any: true}
			for r := range s.regs {
				if r != x86.RSP {
					s.regs[r] = holds{kind: holdsBase, addr: f.got}
				}
			}
			f.flow(at, s)
			f.drain()
		}
	}
	f.entries()
}

// mistaken follows functions again in which the stack pointer isn't where it
// should be when they return: something they call took more from the stack, and
// which word is which isn't known.
func (f *flow32) mistaken() {
	if len(f.uneven) == 0 {
		return
	}
	for at, s := range f.in {
		if f.uneven[f.fde(at)] && !s.any {
			s.any = true
			f.push(at)
		}
	}
	f.drain()
	f.entries()
}

// fde returns the index of the unwind range of an address, -1 when there is
// none.
func (f *flow32) fde(at uint64) int {
	fdes := f.o.File.FDEs
	i := sort.Search(len(fdes), func(i int) bool { return fdes[i].End > at })
	if i < len(fdes) && fdes[i].Start <= at {
		return i
	}
	return -1
}

func (f *flow32) push(at uint64) {
	if !f.queued[at] {
		f.queued[at] = true
		f.queue = append(f.queue, at)
	}
}

// flow adds what is known at the end of a block to what is known at another's
// start.
func (f *flow32) flow(to uint64, s *addresses32) {
	if !f.o.code(to) {
		return
	}
	old := f.in[to]
	if old == nil {
		c := *s
		if len(f.uneven) > 0 && f.uneven[f.fde(to)] {
			c.any = true
		}
		f.in[to] = &c
		f.push(to)
		return
	}
	changed := false
	for r := range old.regs {
		if j := f.join(to, old.regs[r], s.regs[r]); j != old.regs[r] {
			old.regs[r], changed = j, true
		}
	}
	for _, k := range s.kept {
		changed = f.keep(to, old, k) || changed
	}
	if s.any && !old.any {
		old.any, changed = true, true
	}
	if changed {
		f.push(to)
	}
}

// join is what a register may hold that holds v or w: what others are named by
// stays.
func (f *flow32) join(at uint64, v, w holds) holds {
	switch {
	case v == w:
		return v
	case v.kind == holdsBase && w.kind == holdsBase:
		if v.addr != f.got && w.addr != f.got {
			f.conflict = fmt.Sprintf("a register holds one of two addresses at %#x that others are named by", at)
		}
		// Somewhere in the object everything is named by this one.
		return holds{kind: holdsBase, addr: f.got}
	case v.kind == holdsBase:
		return v
	case w.kind == holdsBase:
		return w
	case v.kind == 0 && w.kind != holdsStack:
		return w
	case w.kind == 0 && v.kind != holdsStack:
		return v
	}
	return holds{kind: holdsOther}
}

// keep adds a place on the stack, and reports whether that changed something.
func (f *flow32) keep(at uint64, s *addresses32, k kept32) bool {
	for i, old := range s.kept {
		if old.frame == k.frame && old.off == k.off {
			j := f.join(at, old.v, k.v)
			if j == old.v {
				return false
			}
			s.kept = slices.Clone(s.kept)
			s.kept[i].v = j
			return true
		}
	}
	if len(s.kept) >= maxKept {
		changed := !s.any
		s.any = true
		return changed
	}
	s.kept = append(slices.Clip(s.kept), k)
	return true
}

func (f *flow32) drain() {
	for len(f.queue) > 0 {
		at := f.queue[len(f.queue)-1]
		f.queue = f.queue[:len(f.queue)-1]
		f.queued[at] = false
		f.block(at)
	}
}

// block follows the code from a join point to the end of the block.
func (f *flow32) block(at uint64) {
	o := f.o
	s := *f.in[at]
	code := o.File.From(at)
	var in x86.Inst
	for first := true; ; first = false {
		if !o.code(at) || !first && f.in[at] != nil || !first && o.isTarget(at) {
			f.flow(at, &s)
			return
		}
		n := x86.Decode32(code, &in)
		if n == 0 {
			return
		}
		if o.bound.has(at - o.textLo) {
			f.seen.set(at - o.textLo)
		}
		next := at + uint64(n)
		fl := o.mach.flow(at, code)
		f.references(at, &in, &s)
		switch fl.kind {
		case ctlBranch:
			f.flow(fl.to, &s)
		case ctlJump:
			f.flow(fl.to, &s)
			return
		case ctlIJump:
			f.computed(at, &in, &s)
			return
		case ctlReturn:
			if sp := s.regs[x86.RSP]; sp.kind == holdsStack && (sp.addr != 0 || sp.off != 0) && in.Op != 0xcf {
				f.uneven[f.fde(at)] = true
			}
			return
		case ctlTrap, ctlBreak:
			return
		case ctlCall:
			f.call(&s, fl.to, next)
		case ctlICall:
			f.indirect(&s, at, &in)
		default:
			f.step(at, &in, &s)
		}
		code, at = code[n:], next
	}
}

// clobber forgets what a function may change.
func (f *flow32) clobber(s *addresses32) {
	s.regs[x86.RAX], s.regs[x86.RCX], s.regs[x86.RDX] = holds{}, holds{}, holds{}
}

// call follows a direct call. Compilers know of functions that nobody else
// calls which registers they leave alone.
func (f *flow32) call(s *addresses32, to, next uint64) {
	if to == next {
		f.pushes(s, holds{kind: holdsPlace, addr: uint32(next)}, next)
		return
	}
	if r, ok := f.o.pcThunk(to); ok {
		s.regs[r] = holds{kind: holdsPlace, addr: uint32(next)}
		return
	}
	if _, ok := f.o.pltSlot(to); ok {
		f.clobber(s)
		return
	}
	for _, r := range []uint8{x86.RAX, x86.RCX, x86.RDX} {
		if s.regs[r].kind != holdsBase {
			s.regs[r] = holds{}
		}
	}
	if sp := &s.regs[x86.RSP]; sp.kind == holdsStack {
		sp.off += int32(f.o.popped(to))
	}
}

// indirect follows a call through a pointer. The kernel's way in changes nothing
// but the result, and which variable holds its address isn't known yet.
func (f *flow32) indirect(s *addresses32, at uint64, in *x86.Inst) {
	if throughGate(in) || in.IsMem() && !stackOperand(in, s) && !f.slots[at] {
		s.regs[x86.RAX] = holds{}
		return
	}
	f.clobber(s)
}

func (f *flow32) pushes(s *addresses32, v holds, at uint64) {
	sp := &s.regs[x86.RSP]
	if sp.kind != holdsStack {
		if v.kind == holdsBase {
			s.any = true
		}
		return
	}
	sp.off -= 4
	f.put(s, *sp, v, at)
}

// put stores v to a place on the stack.
func (f *flow32) put(s *addresses32, to, v holds, at uint64) {
	i := slices.IndexFunc(s.kept, func(k kept32) bool { return k.frame == to.addr && k.off == to.off })
	if i >= 0 {
		s.kept = slices.Delete(slices.Clone(s.kept), i, i+1)
	}
	if v.kind == holdsBase || v.kind == holdsPlace {
		f.keep(at, s, kept32{to.addr, to.off, v})
	}
}

// get loads from a place on the stack.
func (f *flow32) get(s *addresses32, from holds, exact bool) holds {
	if from.kind == holdsStack {
		for _, k := range s.kept {
			if k.frame == from.addr && k.off == from.off {
				return k.v
			}
		}
		if !s.any || exact && from.off > 0 {
			return holds{}
		}
	}
	if s.any || from.kind != holdsStack && len(s.kept) > 0 {
		return holds{kind: holdsBase, addr: f.got}
	}
	return holds{}
}

// useless reports whether nothing is named by what a register holds.
func (v holds) useless() bool { return v.kind == 0 || v.kind == holdsStack || v.kind == holdsOther }

// address is what the address of an operand is, without an index; fuzzy is set
// when something is added to it.
func (f *flow32) address(in *x86.Inst, s *addresses32) (v holds, fuzzy bool) {
	fuzzy = in.Index != x86.None
	if in.Base != x86.None {
		v = s.regs[in.Base]
	}
	if in.Index != x86.None && in.Scale == 1 && v.useless() {
		if i := s.regs[in.Index]; !i.useless() {
			v, fuzzy = i, true
		}
	}
	switch v.kind {
	case holdsBase, holdsPlace, holdsTable:
		v.addr += uint32(in.Disp)
	case holdsStack:
		v.off += int32(in.Disp)
	default:
		v = holds{}
	}
	return v, fuzzy
}

// stackOperand reports whether an operand is a place on the stack, as far as
// can be seen: by the stack pointer, or by a register that holds an address there.
func stackOperand(in *x86.Inst, s *addresses32) bool {
	return in.Base == x86.RSP || in.Base != x86.None && s.regs[in.Base].kind == holdsStack || in.Base == x86.RBP && s.any && s.regs[in.Base].kind != holdsBase
}

// references notes what an instruction names.
func (f *flow32) references(at uint64, in *x86.Inst, s *addresses32) {
	if in.Seg != 0 || !in.IsMem() {
		return
	}
	v, fuzzy := f.address(in, s)
	if v.kind != holdsBase && v.kind != holdsPlace || fuzzy && in.Disp == 0 {
		return
	}
	to := uint64(v.addr)
	one := in.Map == x86.MapOne && !in.Vector
	if one && in.Op == 0x8d && f.inGOT(to) || !f.o.File.InImage(to) && !f.o.File.InImage(to-1) {
		return
	}
	// Slots of the linkage table are for its stubs: what loads the address of a
	// function does so from a slot of its own.
	if i, ok := f.o.relocAt[to]; ok && f.o.File.Relocs[i].Type == object.RJumpSlot && !(one && in.Op == 0xff && in.Reg == 4) {
		return
	}
	f.note(at, to, in, !fuzzy)
}

// inGOT reports whether an address is that of a slot, which compilers don't
// take but for those that describe thread-local variables.
func (f *flow32) inGOT(to uint64) bool {
	s := f.o.File.SectionAt(to)
	return f.isBase(uint32(to)) || s >= 0 && (f.o.File.Sections[s].Name == ".got" || f.o.File.Sections[s].Name == ".got.plt")
}

// isBase reports whether an address is that of the global offset table.
func (f *flow32) isBase(addr uint32) bool { return slices.Contains(f.o.gots, uint64(addr)) }

func (f *flow32) note(at, to uint64, in *x86.Inst, exact bool) {
	key := ref{to: to, off: uint32(at - f.o.textLo)}
	if f.noted[key] {
		return
	}
	f.noted[key] = true
	if f.o.operand(at, to, in, exact) {
		if _, ok := f.o.relocAt[to]; ok {
			f.slots[at] = true
		}
	}
}

// named notes an address that is the sum of a register and a constant.
func (f *flow32) named(at uint64, addr uint32) {
	to := uint64(addr)
	key := ref{to: to, off: uint32(at - f.o.textLo)}
	if f.noted[key] || f.inGOT(to) || !f.o.File.InImage(to) {
		return
	}
	f.noted[key] = true
	f.o.addAddr(at, to, refAddr)
}

// maxBranches32 bounds the entries of a table whose length isn't known.
const maxBranches32 = 1024

// computed flows to the targets of a jump through a table.
func (f *flow32) computed(at uint64, in *x86.Inst, s *addresses32) {
	if in.Op != 0xff || in.Mod != 3 {
		return
	}
	t := s.regs[in.RM]
	if t.kind != holdsTarget && t.kind != holdsEntry {
		return
	}
	known := branchTable{uint64(t.addr), tableEntry{anchor: uint64(t.anchor)}}
	if !slices.Contains(f.o.branchTables[at], known) {
		f.o.branchTables[at] = append(f.o.branchTables[at], known)
	}
	fde := f.fde(at)
	b := f.o.File.From(uint64(t.addr))
	for i := 0; i < maxBranches32 && len(b) >= 4; i++ {
		to := f.o.distant(uint64(t.anchor), le32(b))
		if !f.o.code(to) {
			return
		}
		if f.fde(to) == fde && f.o.bound.has(to-f.o.textLo) {
			f.flow(to, s)
		}
		b = b[4:]
	}
}
