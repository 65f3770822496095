package facts

import (
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// nearby is how far, in bytes, before a variable the structure may begin that
// it belongs to.
const nearby = 32

// argRegs are the registers in which either calling convention passes
// arguments: System V's six, and those that Go adds.
var argRegs = [...]uint8{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9, x86.RAX, x86.RBX, x86.R10, x86.R11}

// watch notes what one function does with the address of a variable that it
// takes.
type watch struct {
	o    *Object
	addr uint64
	// stores are the values that are written to the variable.
	stores []watchedStore
	// escapes is set when the address goes where it can't be followed.
	escapes bool
}

type watchedStore struct {
	v val
	s *state
}

// near reports whether a value may be a pointer to the variable or to the
// structure that holds it.
func (w *watch) near(v val) bool {
	for _, a := range v.atoms {
		if a.kind == aConst && uint64(a.off) <= w.addr && w.addr-uint64(a.off) < nearby {
			return true
		}
	}
	return false
}

func (w *watch) store(s *state, addr val, size int64, v val) {
	if w.near(v) {
		w.escapes = true
	}
	for _, a := range addr.atoms {
		to := uint64(a.off)
		if a.kind != aConst || to >= w.addr+8 || to+uint64(size) <= w.addr {
			continue
		}
		if to != w.addr || size < 4 {
			w.escapes = true
			continue
		}
		w.stores = append(w.stores, watchedStore{v, s.clone()})
	}
}

// noteJump looks for the watched address in the arguments of a direct call.
func (it *interp) noteJump(s *state, to uint64) {
	if it.watch == nil || to >= it.fn.Start && to < it.fn.End {
		return
	}
	for _, r := range argRegs {
		if it.watch.near(s.regs[r]) && it.o.readsAtEntry(to, r) {
			it.watch.escapes = true
		}
	}
}

// noteCall looks for the watched address in the arguments of an indirect call.
func (it *interp) noteCall(s *state, in *x86.Inst, next uint64) {
	if it.watch == nil {
		return
	}
	for _, r := range argRegs {
		if it.watch.near(s.regs[r]) {
			it.watch.escapes = true
		}
	}
}

// readsAtEntry reports whether the code at addr may read a register before it
// writes it: only straight code that writes it first is known not to.
func (o *Object) readsAtEntry(addr uint64, r uint8) bool {
	var in x86.Inst
	for range 64 {
		b := o.File.From(addr)
		n := x86.Decode(b, &in)
		if n == 0 || in.Vector || in.Map != x86.MapOne || terminates(&in) && in.Op != 0xe8 ||
			in.Op >= 0x70 && in.Op <= 0x7f || in.Op == 0xe8 || in.Op == 0xcd || in.Op >= 0xe0 && in.Op <= 0xe3 {
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

// watchVariable runs a function that takes the address of a variable.
func (o *Object) watchVariable(fi uint32, addr uint64) *watch {
	w := &watch{o: o, addr: addr}
	it := o.interpreter(fi, nil)
	it.watch = w
	it.start(fi)
	it.run()
	if it.failed {
		w.escapes = true
	}
	return w
}
