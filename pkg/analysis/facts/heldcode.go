package facts

import (
	"context"
	"encoding/binary"
)

// decodeHeld decodes, in programs with fixed addresses, from what words of data
// and immediates point to where the code has no unwind entries and lies among
// tables (GHC puts one in front of each piece of code): a linear decode gets out
// of step there. The code that this shows may hold further addresses.
func (o *Object) decodeHeld(ctx context.Context) error {
	if o.File.IsPIE || o.Facts.Go { // Go's own table says where functions begin
		return nil
	}
	found := o.heldByData()
	for from := 0; ; {
		for ; from < len(o.refs); from++ {
			if r := &o.refs[from]; r.kind == refImm {
				found = o.enterHeld(r.to) || found
			}
		}
		if !found {
			o.sortRefs()
			return nil
		}
		if err := o.decodeTargets(ctx); err != nil {
			return err
		}
		found = false
	}
}

// heldByData enters what words of data point to, and reports whether there was
// anything new.
func (o *Object) heldByData() bool {
	found := false
	for i := range o.File.Sections {
		s := &o.File.Sections[i]
		if s.Exec || s.NoBits || linkers(s.Name) {
			continue
		}
		b := o.File.Bytes(s.Addr, s.Size)
		for p := (8 - s.Addr%8) % 8; p+8 <= uint64(len(b)); p += 8 {
			found = o.enterHeld(binary.LittleEndian.Uint64(b[p:])) || found
		}
	}
	return found
}

// enterHeld enters code that a word may point to, unless its instructions are
// known already, and reports whether it did.
func (o *Object) enterHeld(a uint64) bool {
	if a < o.textLo || a >= o.textHi || a%uint64(o.mach.abi().step) != 0 {
		return false
	}
	if o.bound.has(a-o.textLo) || !o.code(a) || o.inFDE(a) || o.isTarget(a) || !o.looksLikeCode(a) {
		return false
	}
	o.enter(a, true)
	return true
}

// maxLook bounds the instructions that looksLikeCode goes through.
const maxLook = 32

// looksLikeCode reports whether instructions of a user program lie at an address,
// up to where control goes elsewhere.
func (o *Object) looksLikeCode(a uint64) bool {
	for range maxLook {
		if !o.code(a) {
			return false
		}
		b := o.File.From(a)
		f := o.mach.flow(a, b)
		if f.n == 0 || o.mach.privileged(b) {
			return false
		}
		if (f.kind == ctlBranch || f.kind == ctlJump || f.kind == ctlCall) && !o.code(f.to) {
			return false
		}
		if f.kind.ends() {
			return true
		}
		a += uint64(f.n)
	}
	return true
}
