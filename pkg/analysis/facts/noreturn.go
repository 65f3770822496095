package facts

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
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !seen[at] {
			if len(seen) > 1<<14 || at < fn.Start || at >= fn.End {
				return true
			}
			seen[at] = true
			f := o.mach.flow(at, o.File.Bytes(at, fn.End-at))
			if f.n == 0 {
				return true
			}
			inside := f.to >= fn.Start && f.to < fn.End
			switch f.kind {
			case ctlTrap:
				at = addr // nothing follows; addr is already seen
				continue
			case ctlReturn, ctlIJump:
				return true
			case ctlCall:
				if !o.mayReturn(f.to, depth+1) {
					at = addr
					continue
				}
			case ctlJump:
				if !inside {
					if o.mayReturn(f.to, depth+1) {
						return true
					}
					at = addr
					continue
				}
				at = f.to
				continue
			case ctlBranch:
				if inside {
					work = append(work, f.to)
				} else if o.mayReturn(f.to, depth+1) {
					return true
				}
			}
			at += uint64(f.n)
		}
	}
	return false
}
