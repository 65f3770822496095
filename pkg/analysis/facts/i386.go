package facts

import (
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/x86"
	"github.com/confinehq/confine/pkg/syscalls"
)

// i386 is 32-bit x86.
type i386 struct{}

// i386ABI: System V ABI, Intel386 supplement, section 2.2: arguments are on the
// stack. Compilers pass those of functions that nobody else calls in registers,
// and hand-written code uses all of them; Go's functions keep none.
var i386ABI = abi{
	calls: syscalls.I386,
	regs:  8, sp: x86.RSP, number: x86.RAX, pushed: 4, word: 4, step: 1,
	goArgs:      []uint8{x86.RAX, x86.RCX, x86.RDX, x86.RBX, x86.RSI, x86.RDI, x86.RBP},
	clobbered:   []uint8{x86.RAX, x86.RCX, x86.RDX},
	goClobbered: []uint8{x86.RBX, x86.RSI, x86.RDI, x86.RBP},
}

func (i386) abi() *abi { return &i386ABI }

func (i386) scan(o *Object, at uint64, code []byte) int {
	var in x86.Inst
	n := x86.Decode32(code, &in)
	if n > 0 {
		o.instruction32(at, at+uint64(n), &in)
	}
	return n
}

// gateSlot is where a thread's control block keeps the address of the kernel's
// own code that enters the kernel (glibc, sysdeps/unix/sysv/linux/i386/sysdep.h:
// SYSINFO_OFFSET; musl, arch/i386/pthread_arch.h).
const gateSlot = 0x10

// instruction32 notes where one instruction leads. Code that is independent of
// its position names addresses by a register: addresses follows those.
func (o *Object) instruction32(at, next uint64, in *x86.Inst) {
	fixed := !o.File.IsPIE
	slot := false
	if fixed {
		slot = o.absolute(at, in)
	}
	if in.Vector {
		return
	}
	switch in.Map {
	case x86.MapOne:
		switch op := in.Op; {
		case op == 0xe8 || op == 0xe9 || op == 0xeb || op >= 0x70 && op <= 0x7f || op >= 0xe0 && op <= 0xe3:
			if in.OpSize == 4 {
				o.addJump(at, uint64(uint32(next+uint64(in.Imm))))
			}
		case op == 0xff && in.Reg == 4 && !slot:
			o.indir = append(o.indir, at)
		case throughGate(in):
			o.sites = append(o.sites, rawSite{at, SiteSyscall})
		case op == 0xff && in.Reg == 2 && !slot:
			o.icalls = append(o.icalls, at)
		case op == 0xcd && uint8(in.Imm) == 0x80:
			o.sites = append(o.sites, rawSite{at, SiteSyscall})
		case fixed && in.OpSize == 4 && (op >= 0xb8 && op <= 0xbf || op == 0xc7 || op == 0x68 || op == 0x81 || op < 0x40 && op&7 == 5):
			o.immediate(at, uint64(uint32(in.Imm)))
		}
	case x86.Map0F:
		switch op := in.Op; {
		case op >= 0x80 && op <= 0x8f && in.OpSize == 4:
			o.addJump(at, uint64(uint32(next+uint64(in.Imm))))
		case op == 0x05 || op == 0x34:
			o.sites = append(o.sites, rawSite{at, SiteSyscall})
		}
	}
}

// moffs reports whether an instruction names an absolute address without
// ModRM.
func moffs(in *x86.Inst) bool {
	return !in.Vector && in.Map == x86.MapOne && in.Op >= 0xa0 && in.Op <= 0xa3
}

// absolute notes the address in an instruction of a program with fixed ones,
// and reports whether it calls or jumps through a pointer there.
func (o *Object) absolute(at uint64, in *x86.Inst) bool {
	to := uint64(uint32(in.Disp))
	if !in.HasDisp32 || in.Seg != 0 || !o.File.InImage(to) {
		return false
	}
	return o.operand(at, to, in, in.Base == x86.None && in.Index == x86.None)
}

// operand notes that an instruction names an address, exactly or with something
// added to it, and reports whether it calls or jumps through a pointer there.
func (o *Object) operand(at, to uint64, in *x86.Inst, exact bool) bool {
	one := in.Map == x86.MapOne && !in.Vector
	switch {
	case one && in.Op == 0x8d:
		o.addAddr(at, to, refAddr)
	case one && in.Op == 0xff && (in.Reg == 2 || in.Reg == 4) && exact:
		o.addRef(at, to, refSlot)
		return true
	default:
		o.addRef(at, to, refLoad)
	}
	return false
}

func (i386) flow(at uint64, code []byte) flow {
	var in x86.Inst
	n := x86.Decode32(code, &in)
	f := flowX86(at, n, &in)
	f.to = uint64(uint32(f.to))
	if n == 0 || in.Vector || in.Map != x86.MapOne {
		return f
	}
	switch {
	case in.Op == 0x9a:
		f.kind = ctlICall
	case in.Op == 0xea:
		f.kind = ctlIJump
	case in.OpSize == 2 && (f.kind == ctlCall || f.kind == ctlJump || f.kind == ctlBranch && in.ImmSize == 2):
		f.kind = ctlBreak // it would lead to the first 64 KiB
	}
	return f
}

// padding: instructions that do nothing, in the forms that assemblers fill
// space with (binutils, gas/config/tc-i386.c).
func (i386) padding(code []byte) int {
	var in x86.Inst
	n := x86.Decode32(code, &in)
	if n == 0 || in.Vector {
		return 0
	}
	switch {
	case in.Map == x86.Map0F && in.Op == 0x1f:
		return n
	case in.Map != x86.MapOne:
		return 0
	case in.Op == 0x90 && !in.Rep, in.Op == 0xcc, in.Op == 0 && in.Mod == 0:
		return n
	case in.Op == 0x8d && in.IsMem() && in.Base == in.Reg && in.Index == x86.None && in.Disp == 0: // lea 0(%esi),%esi
		return n
	case in.Op == 0x89 && in.Mod == 3 && in.Reg == in.RM: // mov %esi,%esi
		return n
	}
	return 0
}

func (i386) privileged(code []byte) bool {
	var in x86.Inst
	return x86.Decode32(code, &in) > 0 && privilegedX86(&in)
}

// restorer: sigreturn (119) or rt_sigreturn (173), with its number set right
// before.
func (i386) restorer(o *Object, at uint64) bool {
	b := o.File.Bytes(at-5, 7)
	return b != nil && b[5] == 0xcd && b[6] == 0x80 && (string(b[:5]) == "\xb8\x77\x00\x00\x00" || string(b[:5]) == "\xb8\xad\x00\x00\x00")
}

func (i386) compared(o *Object, at uint64) bool { return comparedX86(o, at, x86.Decode32) }

// pltSlot: jmp *slot, or jmp *slot-GOT(%ebx) (psABI i386, "Procedure Linkage
// Table"), perhaps behind a landing pad.
func (i386) pltSlot(o *Object, addr uint64) (uint64, bool) {
	b := o.File.From(addr)
	if len(b) >= 4 && b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && b[3] == 0xfb {
		b = b[4:]
	}
	if len(b) < 6 || b[0] != 0xff {
		return 0, false
	}
	by := le32(b[2:])
	switch b[1] {
	case 0x25:
		return o.boundSlot(uint64(by))
	case 0xa3:
		for _, got := range o.gots {
			if slot, ok := o.boundSlot(o.distant(got, by)); ok {
				return slot, true
			}
		}
	}
	return 0, false
}

// boundSlot reports whether the loader writes a pointer to an address.
func (o *Object) boundSlot(slot uint64) (uint64, bool) {
	_, ok := o.relocAt[slot]
	return slot, ok
}

func (i386) pltHead(b []byte) bool {
	return len(b) >= 12 && b[0] == 0xff && (b[1] == 0x35 && b[6] == 0xff && b[7] == 0x25 || b[1] == 0xb3 && b[6] == 0xff && b[7] == 0xa3)
}

// jumpTables reads the tables that computed jumps go through. Where it isn't
// seen which, all that the function names count that hold two such places, one of
// them inside of the function.
func (i386) jumpTables(o *Object, fn *Func, self int, refs []ref, bounds []uint64) {
	i := sort.Search(len(o.indir), func(i int) bool { return o.indir[i] >= fn.Start })
	for ; i < len(o.indir) && o.indir[i] < fn.End; i++ {
		tables := o.branchTables[o.indir[i]]
		if t, ok := o.fixedTable(o.indir[i]); ok {
			tables = []branchTable{t}
		}
		for _, t := range tables {
			o.table32(fn, self, t, bounds)
		}
		for _, r := range refs {
			if len(tables) == 0 && (r.kind == refAddr || r.kind == refLoad || r.kind == refImm) {
				o.maybeTable32(fn, self, r.to, bounds)
			}
		}
	}
}

// fixedTable is the table of addresses that an instruction jumps through.
func (o *Object) fixedTable(at uint64) (branchTable, bool) {
	var in x86.Inst
	if x86.Decode32(o.File.From(at), &in) == 0 || !in.IsMem() || in.Base != x86.None || in.Index == x86.None || in.Scale != 4 || in.Seg != 0 {
		return branchTable{}, false
	}
	return branchTable{addr: uint64(uint32(in.Disp))}, true
}

// targets32 lists where a table leads, whose words are distances from its
// anchor or, without one, addresses.
func (o *Object) targets32(t branchTable, bounds []uint64) []uint64 {
	reg := o.regionAt(t.addr)
	if reg < 0 && !o.code(t.addr) {
		return nil
	}
	end := t.addr + maxTable*4
	if reg >= 0 {
		end = min(end, o.Facts.Regions[reg].End)
	}
	end = upTo(bounds, t.addr, end)
	var out []uint64
	for a := t.addr; a+4 <= end; a += 4 {
		b := o.File.Bytes(a, 4)
		if b == nil {
			break
		}
		to := o.distant(t.anchor, le32(b))
		i := o.FuncAt(to)
		if !o.code(to) || !o.bound.has(to-o.textLo) || i < 0 || o.stubs(i) {
			break
		}
		out = append(out, to)
	}
	return out
}

// table32 notes where a table leads.
func (o *Object) table32(fn *Func, self int, t branchTable, bounds []uint64) {
	for _, to := range o.targets32(t, bounds) {
		if i := o.FuncAt(to); i != self {
			fn.edge(i, EdgeTable)
			o.inner(i, to)
		} else {
			o.tables[uint32(self)] = append(o.tables[uint32(self)], to)
		}
	}
}

func (o *Object) maybeTable32(fn *Func, self int, base uint64, bounds []uint64) {
	if reg := o.regionAt(base); reg < 0 || o.isGOT(reg) {
		return
	}
	for _, anchor := range append(o.anchors(base), 0) {
		t := branchTable{base, tableEntry{anchor: anchor}}
		list := o.targets32(t, bounds)
		if len(list) >= minRun && slices.ContainsFunc(list, func(to uint64) bool { return o.FuncAt(to) == self }) {
			o.table32(fn, self, t, bounds)
		}
	}
}

// access: the register of an operand that is a reference holds the address of
// the global offset table.
func (i386) access(code []byte) access {
	var in x86.Inst
	if x86.Decode32(code, &in) == 0 {
		return access{}
	}
	if moffs(&in) {
		return access{store: in.Op >= 0xa2, plain: in.Op == 0xa3 && in.OpSize == 4, reg: x86.RAX, width: 4}
	}
	store, reg, exact := storeOf(&in)
	return access{
		store: store, plain: exact && in.Index == x86.None,
		hasImm: reg == x86.None, reg: reg, imm: in.Imm, width: storeWidth(&in),
	}
}

func (i386) scalar(code []byte, size uint64) bool {
	var in x86.Inst
	if x86.Decode32(code, &in) == 0 || in.Vector || uint64(in.OpSize) > size {
		return false
	}
	return in.Map == x86.MapOne && (in.Op == 0x89 || in.Op == 0x8b || in.Op == 0xc7 || in.Op == 0x87 || in.Op == 0xa1 || in.Op == 0xa3) ||
		in.Map == x86.Map0F && (in.Op == 0xb1 || in.Op == 0xc1)
}

// readsAtEntry doesn't look: any function may take anything in any register.
func (i386) readsAtEntry(*Object, uint64, uint8) bool { return true }

func (i386) block(it *interp, at uint64) { it.block(at) }

// pcThunk returns the register in which a function that does nothing else
// returns the address behind its call: mov (%esp),%reg; ret.
func (o *Object) pcThunk(addr uint64) (uint8, bool) {
	b := o.File.Bytes(addr, 4)
	if b == nil || b[0] != 0x8b || b[1]&0xc7 != 0x04 || b[2] != 0x24 || b[3] != 0xc3 {
		return 0, false
	}
	return b[1] >> 3 & 7, true
}
