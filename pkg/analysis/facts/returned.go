package facts

import (
	"math"
	"strings"
)

// returned takes in that a function was called which may return a second time
// (setjmp, vfork): until then, code that ran meanwhile may have changed
// everything on the stack. addr is the function, its stub or its slot.
func (it *interp) returned(s *state, addr uint64) {
	if it.seen == nil || !it.o.returnsTwice(addr) {
		return
	}
	s.stack.forget(math.MinInt64)
	s.lost = true
}

func (o *Object) returnsTwice(addr uint64) bool {
	if twice, ok := o.twice[addr]; ok {
		return twice
	}
	if o.twice == nil {
		o.twice = map[uint64]bool{}
	}
	twice := returnsTwice(o.nameAt(addr))
	o.twice[addr] = twice
	return twice
}

// nameAt is the name of a function by its address, that of its stub or of its
// slot; "" when it has none.
func (o *Object) nameAt(addr uint64) string {
	if slot, ok := o.pltSlot(addr); ok {
		addr = slot
	}
	if i, ok := o.relocAt[addr]; ok {
		if sym := o.File.Relocs[i].Sym; sym >= 0 {
			return o.File.DynSyms[sym].Name
		}
		return ""
	}
	if fi := o.FuncAt(addr); fi >= 0 && o.Facts.Funcs[fi].Start == addr {
		return o.Facts.Symbols[uint32(fi)]
	}
	return ""
}

// returnsTwice reports whether a C compiler takes a function of that name for
// one that returns twice (GCC manual, -O: "setjmp"; GCC's special_function_p).
func returnsTwice(name string) bool {
	switch strings.TrimLeft(name, "_") {
	case "setjmp", "sigsetjmp", "savectx", "vfork", "getcontext":
		return true
	}
	return false
}
