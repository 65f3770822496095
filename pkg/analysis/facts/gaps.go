package facts

import "github.com/confinehq/confine/pkg/analysis/x86"

// maxProbe bounds the instructions looked at to tell code from data.
const maxProbe = 256

// gap reports whether an address lies between the unwind entries of an object
// that has some: hand-written code, stubs, padding, or data among the code.
func (o *Object) gap(addr uint64) bool { return len(o.File.FDEs) > 0 && !o.inFDE(addr) }

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
	seen := map[uint64]bool{}
	work := []uint64{addr}
	var in x86.Inst
	for len(work) > 0 && len(seen) < maxProbe {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !seen[at] && len(seen) < maxProbe {
			if !o.code(at) {
				return false
			}
			seen[at] = true
			n := x86.Decode(o.File.From(at), &in)
			if n == 0 || privileged(&in) {
				return false
			}
			next := at + uint64(n)
			to := next + uint64(in.Imm)
			if in.Vector || in.Map != x86.MapOne && in.Map != x86.Map0F {
				at = next
				continue
			}
			jcc := in.Map == x86.MapOne && (in.Op >= 0x70 && in.Op <= 0x7f || in.Op >= 0xe0 && in.Op <= 0xe3) ||
				in.Map == x86.Map0F && in.Op >= 0x80 && in.Op <= 0x8f
			jmp := in.Map == x86.MapOne && (in.Op == 0xe9 || in.Op == 0xeb)
			call := in.Map == x86.MapOne && in.Op == 0xe8
			if (jcc || jmp || call) && !o.code(to) {
				return false
			}
			if jcc || jmp {
				work = append(work, to)
			}
			if jmp || call || terminates(&in) {
				break
			}
			at = next
		}
	}
	return true
}

// privileged reports whether an instruction faults in user mode (SDM volume 2,
// privilege levels): port I/O, interrupt flag, system registers.
func privileged(in *x86.Inst) bool {
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
