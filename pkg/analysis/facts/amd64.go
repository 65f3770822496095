package facts

import (
	"github.com/confinehq/confine/pkg/analysis/x86"
	"github.com/confinehq/confine/pkg/syscalls"
)

// amd64 is x86-64.
type amd64 struct{}

// amd64ABI: System V ABI, AMD64 supplement, figure 3.4, and for Go the internal
// ABI specification, "amd64 architecture".
var amd64ABI = abi{
	calls: syscalls.AMD64,
	regs:  16, sp: x86.RSP, number: x86.RAX, pushed: 8, word: 8, step: 1,
	args:        []uint8{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9},
	kernelArgs:  []uint8{x86.RDI, x86.RSI, x86.RDX, x86.R10, x86.R8, x86.R9},
	goArgs:      []uint8{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9, x86.RAX, x86.RBX, x86.R10, x86.R11},
	goContext:   x86.RDX,
	clobbered:   []uint8{x86.RAX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.R8, x86.R9, x86.R10, x86.R11},
	goClobbered: []uint8{x86.RBX, x86.R12, x86.R13, x86.R14, x86.R15},
}

func (amd64) abi() *abi { return &amd64ABI }

func (amd64) scan(o *Object, at uint64, code []byte) int {
	var in x86.Inst
	n := x86.Decode(code, &in)
	if n > 0 {
		o.instruction(at, at+uint64(n), &in, !o.File.IsPIE)
	}
	return n
}

func (amd64) addresses(*Object) {}

func (amd64) flow(at uint64, code []byte) flow {
	var in x86.Inst
	return flowX86(at, x86.Decode(code, &in), &in)
}

// flowX86 is the flow of an instruction of n bytes.
func flowX86(at uint64, n int, in *x86.Inst) flow {
	f := flow{n: n}
	if f.n == 0 || in.Vector {
		return f
	}
	f.to = at + uint64(f.n) + uint64(in.Imm)
	op := in.Op
	switch in.Map {
	case x86.MapOne:
		switch {
		case op >= 0x70 && op <= 0x7f, op >= 0xe0 && op <= 0xe3:
			f.kind = ctlBranch
		case op == 0xe8:
			f.kind = ctlCall
		case op == 0xe9, op == 0xeb:
			f.kind = ctlJump
		case op == 0xff && (in.Reg&7 == 2 || in.Reg&7 == 3):
			f.kind = ctlICall
		case op == 0xff && (in.Reg&7 == 4 || in.Reg&7 == 5):
			f.kind = ctlIJump
		case op == 0xc3, op == 0xc2, op == 0xcb, op == 0xca, op == 0xcf:
			f.kind = ctlReturn
		case op == 0xf4:
			f.kind = ctlTrap
		case op == 0xcc:
			f.kind = ctlBreak
		}
	case x86.Map0F:
		switch {
		case op >= 0x80 && op <= 0x8f:
			f.kind = ctlBranch
		case op == 0x0b:
			f.kind = ctlTrap
		case op == 0xb9, op == 0xff, op == 0x07:
			f.kind = ctlBreak
		}
	}
	return f
}

func (amd64) padding(code []byte) int {
	var in x86.Inst
	n := x86.Decode(code, &in)
	if n > 0 && !in.Vector && (in.Map == x86.MapOne && (in.Op == 0x90 && !in.Rep || in.Op == 0xcc || in.Op == 0 && in.Mod == 0) ||
		in.Map == x86.Map0F && in.Op == 0x1f) {
		return n
	}
	return 0
}

// privileged: SDM volume 2, privilege levels: port I/O, interrupt flag, system
// registers.
func (amd64) privileged(code []byte) bool {
	var in x86.Inst
	return x86.Decode(code, &in) > 0 && privilegedX86(&in)
}

func privilegedX86(in *x86.Inst) bool {
	if in.Vector {
		return false
	}
	switch in.Map {
	case x86.MapOne:
		switch op := in.Op; {
		case op >= 0x6c && op <= 0x6f, op >= 0xe4 && op <= 0xe7, op >= 0xec && op <= 0xef,
			op == 0xfa, op == 0xfb, op == 0xca, op == 0xcb, op == 0xcf, op == 0xf1, op == 0x9b && in.Rep:
			return true
		}
	case x86.Map0F:
		switch in.Op {
		case 0x00, 0x02, 0x03, 0x06, 0x07, 0x08, 0x09, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32, 0x33, 0x35, 0x36, 0x37, 0xa6, 0xa7:
			return true
		}
	}
	return false
}

// restorer: rt_sigreturn (15), with its number set right before.
func (amd64) restorer(o *Object, at uint64) bool {
	if b := o.File.Bytes(at, 2); b == nil || b[0] != 0x0f || b[1] != 0x05 {
		return false
	}
	b := o.File.Bytes(at-7, 7) // mov $15,%rax or mov $15,%eax
	if b == nil {
		return false
	}
	return string(b) == "\x48\xc7\xc0\x0f\x00\x00\x00" || string(b[2:]) == "\xb8\x0f\x00\x00\x00"
}

// compared looks at the next instruction: musl asks in this way whether a
// signal came inside of its cancellation points.
func (amd64) compared(o *Object, at uint64) bool {
	return comparedX86(o, at, x86.Decode)
}

func comparedX86(o *Object, at uint64, decode func([]byte, *x86.Inst) int) bool {
	var lea, cmp x86.Inst
	n := decode(o.File.From(at), &lea)
	if n == 0 || decode(o.File.From(at+uint64(n)), &cmp) == 0 || cmp.Vector || cmp.Map != x86.MapOne || cmp.Mod != 3 {
		return false
	}
	return (cmp.Op == 0x39 || cmp.Op == 0x3b) && (cmp.Reg == lea.Reg || cmp.RM == lea.Reg)
}

func (amd64) pltSlot(o *Object, addr uint64) (uint64, bool) {
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

func (amd64) pltHead(b []byte) bool {
	return len(b) > 8 && b[0] == 0xff && b[1] == 0x35 && (b[6] == 0xff && b[7] == 0x25 || b[6] == 0xf2 && b[7] == 0xff && b[8] == 0x25)
}

func (amd64) jumpTables(o *Object, fn *Func, self int, refs []ref, bounds []uint64) {
	for _, r := range refs {
		if r.kind == refAddr || r.kind == refLoad || r.kind == refImm {
			o.jumpTable(fn, self, r.to, bounds)
		}
	}
}

func (amd64) access(code []byte) access {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 {
		return access{}
	}
	store, reg, exact := storeOf(&in)
	return access{
		store: store, plain: exact && in.Base == x86.None && in.Index == x86.None,
		hasImm: reg == x86.None, reg: reg, imm: in.Imm, width: storeWidth(&in),
	}
}

func (amd64) scalar(code []byte, size uint64) bool {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 || in.Vector || uint64(in.OpSize) > size {
		return false
	}
	return in.Map == x86.MapOne && (in.Op == 0x89 || in.Op == 0x8b || in.Op == 0xc7 || in.Op == 0x87) ||
		in.Map == x86.Map0F && (in.Op == 0xb1 || in.Op == 0xc1)
}

// readsAtEntry: only straight code that writes the register first is known not
// to.
func (amd64) readsAtEntry(o *Object, addr uint64, r uint8) bool {
	var in x86.Inst
	for range 64 {
		b := o.File.From(addr)
		n := x86.Decode(b, &in)
		if n == 0 || in.Vector || in.Map != x86.MapOne || (amd64{}).flow(addr, b).kind != ctlNext || in.Op == 0xcd {
			return true
		}
		if in.IsMem() && (in.Base == r || in.Index == r) {
			return true
		}
		switch op := in.Op; {
		case op == 0x89: // mov reg to r/m
			if in.Reg == r {
				return true
			}
			if in.Mod == 3 && in.RM == r && in.OpSize >= 4 {
				return false
			}
		case op == 0x8b || op == 0x8d: // mov r/m to reg, lea
			if in.Mod == 3 && in.RM == r {
				return true
			}
			if in.Reg == r && in.OpSize >= 4 {
				return false
			}
		case op >= 0xb8 && op <= 0xbf:
			if in.RM == r {
				return false
			}
		case op >= 0x50 && op <= 0x57:
			if in.RM == r {
				return true
			}
		case op == 0x90:
		case op == 0x83 && in.Mod == 3 && in.RM == x86.RSP:
		default:
			return true
		}
		addr += uint64(n)
	}
	return true
}

func (amd64) block(it *interp, at uint64) { it.block(at) }
