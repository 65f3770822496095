package facts

import (
	"debug/elf"
	"maps"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// nearby is how far, in bytes, before a variable the structure may begin that
// it belongs to, where addresses have 8 bytes: structures of shorter ones are
// shorter.
const nearby = 32

// scaled fits a length of data to that of addresses.
func (o *Object) scaled(bytes uint64) uint64 { return bytes * o.File.WordSize() / 8 }

// nearbyPointed is the same for structures that a pointer in data leads to:
// such pointers are many, and what they lead to lies side by side.
const nearbyPointed = 16

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
		if a.kind == aConst && uint64(a.off) <= w.addr && w.addr-uint64(a.off) < w.o.scaled(nearby) {
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
		if a.kind != aConst || to >= w.addr+w.o.File.WordSize() || to+uint64(size) <= w.addr {
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
	for _, r := range s.abi.goArgs {
		if it.watch.near(s.regs[r]) && it.o.mach.readsAtEntry(it.o, to, r) {
			it.watch.escapes = true
		}
	}
}

// noteIndirect looks for the watched address in the arguments of an indirect
// call.
func (it *interp) noteIndirect(s *state) {
	if it.watch == nil {
		return
	}
	for _, r := range s.abi.goArgs {
		if it.watch.near(s.regs[r]) {
			it.watch.escapes = true
		}
	}
}

// watchVariable runs a function that takes the address of a variable.
func (o *Object) watchVariable(fi uint32, addr uint64) *watch {
	w := &watch{o: o, addr: addr}
	it := o.interpreter(fi, nil)
	it.watch = w
	it.start(fi)
	it.run()
	if it.failed || it.uneven {
		w.escapes = true
	}
	return w
}

// global collects what is stored to a variable: every instruction that names
// its address is looked at, and the variable's address must never be taken.
func (o *Object) global(addr uint64, depth int, use func(fi uint32, v val, s *state) numbers) numbers {
	if depth > 8 || len(o.asked) > maxVariables {
		return unresolved("the number goes through too many variables")
	}
	if !o.File.HasSections && !o.File.IsPIE {
		return unresolved("the number is in a variable")
	}
	if !o.spend(len(o.refs) / lookCost) {
		return unresolved("the number is in one of too many variables")
	}
	if o.shared(addr) {
		return unresolved(SharedNumber)
	}
	out := numbers{vars: o.exportsAt(addr)}
	taken := map[uint32]bool{} // functions that take the address
	stored := func(fi uint32, v val, s *state) {
		m := use(fi, v, s)
		m.keep(fi)
		// What the storing function's own parameters say is asked of its callers.
		for _, k := range m.from {
			m.add(o.callersValue(k, depth+1))
		}
		m.from = nil
		out.add(m)
	}
	for i := range o.refs {
		r := &o.refs[i]
		if r.to >= addr+o.File.WordSize() || r.to+max(64, o.mach.abi().anchored) <= addr || r.kind == refJump {
			continue
		}
		fi := o.FuncAt(o.at(r))
		if fi < 0 {
			continue
		}
		if r.kind == refAddr || r.kind == refImm || r.kind == refPage {
			if r.to <= addr && (addr-r.to < o.mach.abi().anchored && o.regionAt(r.to) == o.regionAt(addr) ||
				addr-r.to < o.scaled(nearby) && (r.to == addr || !o.scalarAt(r.to, addr-r.to))) {
				taken[uint32(fi)] = true
			}
			continue
		}
		acc := o.mach.access(o.File.From(o.at(r)))
		if !acc.store || r.to < addr && r.to+acc.width <= addr {
			continue
		}
		if r.to != addr {
			return unresolved("the number is in a variable that is written as part of another")
		}
		if !acc.plain {
			return unresolved("the number is in a variable that is written in an unknown way")
		}
		if acc.hasImm {
			m := use(uint32(fi), constant(acc.imm), unknownState(o.mach.abi()))
			m.keep(uint32(fi))
			out.add(m)
			continue
		}
		s := o.statesAt(uint32(fi), []uint64{o.at(r)})[o.at(r)]
		stored(uint32(fi), s.regs[acc.reg], s)
	}
	for _, fi := range slices.Sorted(maps.Keys(taken)) {
		w := o.watchVariable(fi, addr)
		if w.escapes {
			return unresolved("the number is in a variable whose address is taken")
		}
		for _, st := range w.stores {
			stored(fi, st.v, st.s)
		}
	}
	return out
}

// SharedNumber says why a number is unresolved that others can change.
const SharedNumber = "the number is in a variable that other objects, or pointers in data, can change"

// exportedAt reports whether a symbol is an exported variable, or a structure,
// that an address lies in.
func exportedAt(s *object.Symbol, addr uint64) bool {
	return s.Defined && s.Bind != elf.STB_LOCAL && s.Type != elf.STT_FUNC && s.Type != elf.STT_TLS && s.Addr <= addr && addr < s.Addr+max(s.Size, 1)
}

// exportsAt returns the exports that a variable lies in.
func (o *Object) exportsAt(addr uint64) []uint32 {
	var out []uint32
	for i := range o.File.DynSyms {
		if s := &o.File.DynSyms[i]; exportedAt(s, addr) {
			if k, ok := slices.BinarySearchFunc(o.Facts.Exports, s.Name, func(e Export, name string) int { return strings.Compare(e.Name, name) }); ok {
				out = append(out, uint32(k))
			}
		}
	}
	return out
}

// shared reports whether a variable can be changed by others than the code that
// names it, and not only through the name that it is exported by: the loader
// fills in its address or its content, or a pointer in data leads to it or to a
// few bytes before it.
func (o *Object) shared(addr uint64) bool {
	for i := range o.File.Relocs {
		if sym := o.File.Relocs[i].Sym; sym >= 0 && exportedAt(&o.File.DynSyms[sym], addr) {
			return true
		}
	}
	if o.pointed == nil {
		o.pointed = o.dataPointers()
	}
	i, _ := slices.BinarySearch(o.pointed, addr+1)
	if i == 0 {
		return false
	}
	to := o.pointed[i-1]
	return to == addr || addr-to <= o.scaled(nearbyPointed) && !o.inRow(i-1, addr-to) && !o.scalarAt(to, addr-to)
}

// inRow reports whether the pointer of an index leads to the last of three
// places that lie size bytes apart: those are taken for things of that size
// (the locks of the C library's files).
func (o *Object) inRow(i int, size uint64) bool {
	_, one := slices.BinarySearch(o.pointed, o.pointed[i]-size)
	_, two := slices.BinarySearch(o.pointed, o.pointed[i]-2*size)
	return one && two
}

// dataPointers lists the addresses of data that lie in data, sorted.
func (o *Object) dataPointers() []uint64 {
	f := o.File
	out := []uint64{}
	for i := range f.Relocs {
		r := &f.Relocs[i]
		to := r.Addend
		if r.Sym >= 0 {
			if !f.DynSyms[r.Sym].Defined {
				continue
			}
			to += f.DynSyms[r.Sym].Addr
		}
		if !o.code(to) {
			out = append(out, to)
		}
	}
	if !f.IsPIE {
		for i := range f.Sections {
			s := &f.Sections[i]
			if s.Exec || s.NoBits || linkers(s.Name) && !isGOT(s.Name) || !s.Write && strings.HasPrefix(s.Name, ".go") {
				continue
			}
			w := f.WordSize()
			for p := s.Addr + (w-s.Addr%w)%w; p+w <= s.Addr+s.Size; p += w {
				if v, ok := f.Word(p); ok && v >= 4096 && f.InImage(v) && !o.code(v) {
					out = append(out, v)
				}
			}
		}
	}
	return uniq(out)
}

// storeWidth is an upper bound of the bytes that a store writes.
func storeWidth(in *x86.Inst) uint64 {
	switch {
	case in.Vector:
		return 64
	case in.Map == x86.MapOne && in.Op >= 0xd8 && in.Op <= 0xdf:
		return 108 // fsave
	case in.Map == x86.MapOne:
		return uint64(in.OpSize)
	case in.Map == x86.Map0F && (in.Op >= 0x90 && in.Op <= 0x9f || in.Op == 0xb0 || in.Op == 0xc0):
		return 1
	case in.Map == x86.Map0F && (in.Op == 0xb1 || in.Op == 0xc1 || in.Op == 0xab || in.Op == 0xb3 || in.Op == 0xbb || in.Op == 0xba || in.Op == 0xc3):
		return uint64(in.OpSize)
	case in.Map == x86.Map0F && in.Op == 0xae:
		return 4096 // xsave
	}
	return 16
}

// scalarAt reports whether code reads or writes a variable of at most size
// bytes at addr: what follows it is then taken for another object, which
// pointers to this one don't reach. It is the one place where the layout of
// data is guessed, and it matters only for numbers kept behind a pointer in a
// variable (set*id of glibc in static programs).
func (o *Object) scalarAt(addr, size uint64) bool {
	if !o.spend(len(o.refs) / lookCost) {
		return false
	}
	for i := range o.refs {
		r := &o.refs[i]
		if r.to == addr && r.kind == refLoad && o.mach.scalar(o.File.From(o.at(r)), size) {
			return true
		}
	}
	return false
}

// storeOf reports whether an instruction with a memory operand writes it, and
// from which register (None: an immediate); exact is false when what is
// written is not a plain move.
func storeOf(in *x86.Inst) (store bool, reg uint8, exact bool) {
	if !in.IsMem() {
		return false, 0, false
	}
	if in.Vector || in.Map == x86.Map0F38 || in.Map == x86.Map0F3A {
		return in.Vector && (in.Op == 0x11 || in.Op == 0x29 || in.Op == 0x7f || in.Op == 0x13 || in.Op == 0x17 || in.Op == 0xd6 || in.Op == 0xe7 || in.Op == 0x2b) || in.Map != x86.Map0F, 0, false
	}
	if in.Map == x86.Map0F {
		switch op := in.Op; {
		case op == 0x11, op == 0x13, op == 0x17, op == 0x29, op == 0x2b, op == 0x7f, op == 0xd6, op == 0xe7,
			op == 0xb0, op == 0xb1, op == 0xc0, op == 0xc1, op == 0xc7, op >= 0x90 && op <= 0x9f, op == 0xab, op == 0xb3, op == 0xbb,
			op == 0xba && in.Reg&7 > 4, op == 0xc3, op == 0xae, op == 0xa4, op == 0xa5, op == 0xac, op == 0xad, op == 0x7e:
			return true, 0, false
		}
		return false, 0, false
	}
	switch op := in.Op; {
	case op == 0x89:
		return true, in.Reg, in.OpSize >= 4
	case op == 0xc7:
		return true, x86.None, in.OpSize >= 4
	case op < 0x38 && op&7 <= 1, op == 0x88, op == 0x86, op == 0x87, op == 0xc6, op == 0xc0, op == 0xc1, op >= 0xd0 && op <= 0xd3, op == 0xfe, op == 0x8f,
		(op == 0x80 || op == 0x81 || op == 0x83) && in.Reg&7 != 7,
		(op == 0xf6 || op == 0xf7) && (in.Reg&7 == 2 || in.Reg&7 == 3),
		op == 0xff && in.Reg&7 < 2, op >= 0xd8 && op <= 0xdf:
		return true, 0, false
	}
	return false, 0, false
}
