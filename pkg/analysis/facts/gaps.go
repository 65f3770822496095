package facts

// maxProbe bounds the instructions looked at to tell code from data.
const maxProbe = 256

// gap reports whether an address lies between the unwind entries of an object
// that has some: hand-written code, stubs, padding, or data among the code.
// The code of Go's compiler, which has a table of its own, is no gap.
func (o *Object) gap(addr uint64) bool {
	return len(o.File.FDEs) > 0 && !o.inFDE(addr) && (addr < o.goSpan.lo || addr >= o.goSpan.hi)
}

// dataInText reports whether what lies at an address in a gap can't be code:
// following it from there, up to the first calls, comes to bytes that are no
// instruction, to one that a user program can't execute, or to a jump that
// leaves the code. Assembly keeps its tables among the code (OpenSSL,
// libgcrypt), and takes their addresses.
func (o *Object) dataInText(addr uint64) bool {
	if !o.gap(addr) {
		return false
	}
	if d, ok := o.probed[addr]; ok {
		return d
	}
	d := !o.plausible(addr)
	if o.probed == nil {
		o.probed = map[uint64]bool{}
	}
	o.probed[addr] = d
	return d
}

func (o *Object) plausible(addr uint64) bool {
	if o.seen == nil {
		o.seen = &probe{}
	}
	seen := o.seen
	seen.clear()
	work := append(o.probing[:0], addr)
	defer func() { o.probing = work }()
	for len(work) > 0 && seen.n < maxProbe {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !seen.has(at) && seen.n < maxProbe {
			if !o.code(at) {
				return false
			}
			seen.add(at)
			code := o.File.From(at)
			f := o.mach.flow(at, code)
			if f.n == 0 || o.mach.privileged(code) {
				return false
			}
			fixed := f.kind == ctlBranch || f.kind == ctlJump
			if (fixed || f.kind == ctlCall) && !o.code(f.to) {
				return false
			}
			if fixed {
				work = append(work, f.to)
			}
			if f.kind.ends() {
				break
			}
			at += uint64(f.n)
		}
	}
	return true
}

// entered reports whether control comes to the start of a function: a jump or
// an address leads there, or the function before runs on into it.
func (o *Object) entered(fi uint32) bool {
	fs := o.Facts.Funcs
	if o.startsAt(fs[fi].Start) && !o.dataInText(fs[fi].Start) {
		return true
	}
	if fi == 0 || fs[fi-1].End != fs[fi].Start {
		return false
	}
	for _, e := range fs[fi-1].Edges {
		if e.To == fi && e.Kind == EdgeFall {
			return true
		}
	}
	return false
}

// dropUnentered removes the sites in gaps that no way leads to: bytes of
// tables that look like one.
func (o *Object) dropUnentered() {
	for fi := range o.Facts.Funcs {
		fn := &o.Facts.Funcs[fi]
		if len(fn.Sites) == 0 || !o.gap(fn.Start) {
			continue
		}
		addrs := make([]uint64, len(fn.Sites))
		for i := range fn.Sites {
			addrs[i] = fn.Sites[i].Addr
		}
		it := o.interpreter(uint32(fi), addrs)
		it.start(uint32(fi))
		for k := o.firstRef(fn.Start); k < len(o.refs) && o.at(&o.refs[k]) < fn.End; k++ {
			// A label whose address the function itself takes.
			if r := &o.refs[k]; (r.kind == refAddr || r.kind == refImm) && r.to > fn.Start && r.to < fn.End && o.bound.has(r.to-o.textLo) {
				it.flow(r.to, entryState(o.mach.abi()))
			}
		}
		for _, at := range o.orphans(fi) {
			it.flow(at, entryState(o.mach.abi()))
		}
		it.run()
		if it.failed {
			continue
		}
		kept := fn.Sites[:0]
		for _, s := range fn.Sites {
			if it.want[s.Addr] != nil {
				kept = append(kept, s)
			}
		}
		fn.Sites = kept
	}
}
