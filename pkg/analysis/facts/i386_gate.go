package facts

import (
	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// gated is a machine whose programs enter the kernel through a pointer.
type gated interface{ gates(o *Object) }

// gates finds the calls of the kernel's own way in that go through a variable.
// C libraries keep its address in the thread's control block, where sites are
// known by the instruction (gateSlot), and in a variable, which begins with a
// function that does nothing but int $0x80; ret. Nothing else goes to that
// function: its number is that of the calls through the variable or the control
// block, and it is no site by itself. Code may put its address into that variable
// again.
func (i386) gates(o *Object) {
	stubs := map[uint64]bool{} // to whether nothing calls it by itself
	for _, s := range o.sites {
		if start, ok := o.gateStub(s.at); ok {
			stubs[start] = true
		}
	}
	if len(stubs) == 0 {
		return
	}
	variables := o.gateVariables(stubs)
	o.gateStores(stubs, variables)
	if len(variables) == 0 {
		return
	}
	calls := map[uint64]bool{}
	for i := range o.refs {
		switch r := &o.refs[i]; {
		case stubs[r.to] && r.kind == refJump:
			stubs[r.to] = false
		case r.kind == refSlot && variables[r.to]:
			calls[o.at(r)] = true
		}
	}
	kept := o.sites[:0]
	for _, s := range o.sites {
		if start, ok := o.gateStub(s.at); !ok || !stubs[start] {
			kept = append(kept, s)
		}
	}
	o.sites = kept
	o.gateCalls = calls
	for at := range calls {
		o.sites = append(o.sites, rawSite{at, SiteSyscall})
	}
}

// gateStub returns where a function begins that is an int $0x80 and a return.
func (o *Object) gateStub(at uint64) (uint64, bool) {
	if b := o.File.Bytes(at, 3); b == nil || b[0] != 0xcd || b[1] != 0x80 || b[2] != 0xc3 {
		return 0, false
	}
	if o.startsAt(at) {
		return at, true
	}
	if b := o.File.Bytes(at-4, 4); b != nil && string(b) == "\xf3\x0f\x1e\xfb" && o.startsAt(at-4) {
		return at - 4, true
	}
	return 0, false
}

// maxGateStore bounds the instructions between one that computes the address of
// a stub and one that stores it.
const maxGateStore = 4

// gateStores adds the variables that code puts the address of a stub into.
func (o *Object) gateStores(stubs, variables map[uint64]bool) {
	at := map[uint64]uint64{} // instructions that name variables
	var takes []uint64
	for i := range o.refs {
		switch r := &o.refs[i]; {
		case r.kind == refLoad:
			at[o.at(r)] = r.to
		case stubs[r.to] && (r.kind == refAddr || r.kind == refImm):
			takes = append(takes, o.at(r))
		}
	}
	for _, a := range takes {
		if v, ok := o.storedNext(a, at); ok {
			variables[v] = true
		}
	}
}

// storedNext returns the variable that the result of an instruction is stored to
// right behind it.
func (o *Object) storedNext(a uint64, named map[uint64]uint64) (uint64, bool) {
	var in x86.Inst
	n := x86.Decode32(o.File.From(a), &in)
	reg := in.Reg
	switch {
	case in.Map != x86.MapOne || in.Vector:
		return 0, false
	case in.Op >= 0xb8 && in.Op <= 0xbf:
		reg = in.RM
	case in.Op == 0xc7: // stored at once
		v, ok := named[a]
		return v, ok
	case in.Op != 0x8d:
		return 0, false
	}
	for range maxGateStore {
		a += uint64(n)
		if n = x86.Decode32(o.File.From(a), &in); n == 0 {
			return 0, false
		}
		if acc := o.mach.access(o.File.From(a)); acc.plain && !acc.hasImm && acc.reg == reg {
			v, ok := named[a]
			return v, ok
		}
	}
	return 0, false
}

// gateVariables returns where data holds the address of a stub.
func (o *Object) gateVariables(stubs map[uint64]bool) map[uint64]bool {
	out := map[uint64]bool{}
	f := o.File
	for i := range f.Relocs {
		if r := &f.Relocs[i]; r.Type == object.RRelative && stubs[r.Addend] {
			out[r.Addr] = true
		}
	}
	if f.IsPIE {
		return out
	}
	for _, s := range f.Sections {
		if s.Exec || s.NoBits {
			continue
		}
		for a := (s.Addr + 3) &^ 3; a+4 <= s.Addr+s.Size; a += 4 {
			if v, ok := f.Word(a); ok && stubs[v] {
				out[a] = true
				o.enter(v, true)
			}
		}
	}
	return out
}
