package facts

import "github.com/confinehq/confine/pkg/analysis/x86"

// maxReturnDepth bounds how deep calls are followed to prove that a function
// never returns; beyond it, it may.
const maxReturnDepth = 24

// mayReturn reports whether a call of the code at addr can come back. Only a
// proof counts: no path from addr reaches a return, a computed jump, another
// object, or a function that may return.
func (o *Object) mayReturn(addr uint64, depth int) bool {
	if r, ok := o.returns[addr]; ok {
		return r
	}
	if depth > maxReturnDepth || !o.code(addr) {
		return true
	}
	fi := o.FuncAt(addr)
	if fi < 0 {
		return true
	}
	if _, plt := o.pltSlot(addr); plt {
		return true
	}
	if o.returns == nil {
		o.returns = map[uint64]bool{}
	}
	o.returns[addr] = true // for cycles: unproven
	r := o.findReturn(addr, &o.Facts.Funcs[fi], depth)
	o.returns[addr] = r
	return r
}

func (o *Object) findReturn(addr uint64, fn *Func, depth int) bool {
	seen := map[uint64]bool{}
	work := []uint64{addr}
	var in x86.Inst
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !seen[at] {
			if len(seen) > 1<<14 || at < fn.Start || at >= fn.End {
				return true
			}
			seen[at] = true
			n := x86.Decode(o.File.Bytes(at, fn.End-at), &in)
			if n == 0 || in.Vector {
				if n == 0 {
					return true
				}
				at += uint64(n)
				continue
			}
			next := at + uint64(n)
			to := next + uint64(in.Imm)
			inside := to >= fn.Start && to < fn.End
			switch op := in.Op; {
			case in.Map == x86.Map0F && op == 0x0b, in.Map == x86.MapOne && op == 0xf4:
				at = addr // a trap: nothing follows; addr is already seen
				continue
			case in.Map == x86.MapOne && (op == 0xc3 || op == 0xc2 || op == 0xcb || op == 0xca || op == 0xcf),
				in.Map == x86.MapOne && op == 0xff && (in.Reg&7 == 4 || in.Reg&7 == 5):
				return true
			case in.Map == x86.MapOne && op == 0xe8:
				if !o.mayReturn(to, depth+1) {
					at = addr
					continue
				}
			case in.Map == x86.MapOne && (op == 0xe9 || op == 0xeb):
				if !inside {
					if o.mayReturn(to, depth+1) {
						return true
					}
					at = addr
					continue
				}
				at = to
				continue
			case in.Map == x86.MapOne && (op >= 0x70 && op <= 0x7f || op >= 0xe0 && op <= 0xe3), in.Map == x86.Map0F && op >= 0x80 && op <= 0x8f:
				if inside {
					work = append(work, to)
				} else if o.mayReturn(to, depth+1) {
					return true
				}
			}
			at = next
		}
	}
	return false
}
