package facts

import (
	"slices"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

// fallsThrough reports whether control can run past the end of a function. A
// call as the last instruction is one that doesn't return: compilers leave
// nothing behind a call otherwise.
func (o *Object) fallsThrough(fn *Func) bool {
	pos := fn.End
	lo := max(fn.Start, pos-min(pos, 256))
	// Find the last instruction that isn't padding, walking known boundaries.
	var in x86.Inst
	for pos > lo {
		at := pos - 1
		for at > lo && !o.bound.has(at-o.textLo) {
			at--
		}
		if at < lo || !o.bound.has(at-o.textLo) {
			return false
		}
		b := o.File.Bytes(at, fn.End-at)
		n := x86.Decode(b, &in)
		if n == 0 {
			return false
		}
		if isPadding(&in) {
			pos = at
			continue
		}
		return !terminates(&in) && !o.restorer(&in, at)
	}
	return fn.End-fn.Start <= 256 && pos == fn.Start && fn.End > fn.Start && !o.allPadding(fn)
}

// restorer reports whether an instruction is a signal restorer's system call,
// rt_sigreturn (15) with its number set right before, which never returns.
func (o *Object) restorer(in *x86.Inst, at uint64) bool {
	if in.Vector || in.Map != x86.Map0F || in.Op != 0x05 {
		return false
	}
	b := o.File.Bytes(at-7, 7) // mov $15,%rax or mov $15,%eax
	if b == nil {
		return false
	}
	return string(b) == "\x48\xc7\xc0\x0f\x00\x00\x00" || string(b[2:]) == "\xb8\x0f\x00\x00\x00"
}

// dropPadding takes the way out of functions that hold nothing but padding and
// that nothing enters, so that they don't count as callers of what follows.
func (o *Object) dropPadding() {
	fs := o.Facts.Funcs
	entered := make([]bool, len(fs))
	for i := range fs {
		for _, e := range fs[i].Edges {
			if e.Kind != EdgeFall {
				entered[e.To] = true
			}
		}
	}
	for i := range o.Facts.Regions {
		for _, f := range o.Facts.Regions[i].Funcs {
			entered[f] = true
		}
	}
	for _, f := range o.Facts.Roots {
		entered[f] = true
	}
	for i := range o.Facts.Exports {
		if f := o.Facts.Exports[i].Func; f > 0 {
			entered[f-1] = true
		}
	}
	falls := false // the function before runs on into this one
	for i := range fs {
		into := falls
		falls = len(fs[i].Edges) > 0 && slices.Contains(fs[i].Edges, Edge{uint32(i + 1), EdgeFall})
		if falls && !into && !entered[i] && o.nops(&fs[i]) {
			fs[i].Edges, falls = nil, false
		}
	}
}

// nops reports whether a function is nothing but padding.
func (o *Object) nops(fn *Func) bool {
	b := o.File.Bytes(fn.Start, fn.End-fn.Start)
	var in x86.Inst
	for len(b) > 0 {
		n := x86.Decode(b, &in)
		if n == 0 || !isPadding(&in) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (o *Object) allPadding(fn *Func) bool {
	for _, c := range o.File.Bytes(fn.Start, fn.End-fn.Start) {
		if c != 0xcc && c != 0 {
			return false
		}
	}
	return true
}

func isPadding(in *x86.Inst) bool {
	if in.Vector {
		return false
	}
	return in.Map == x86.MapOne && (in.Op == 0x90 && !in.Rep || in.Op == 0xcc || in.Op == 0 && in.Mod == 0) ||
		in.Map == x86.Map0F && in.Op == 0x1f
}

func terminates(in *x86.Inst) bool {
	if in.Vector {
		return false
	}
	switch in.Map {
	case x86.MapOne:
		switch in.Op {
		case 0xc3, 0xc2, 0xcb, 0xca, 0xcf, 0xe9, 0xeb, 0xf4, 0xcc, 0xe8:
			return true
		case 0xff:
			return in.Reg&7 == 4 || in.Reg&7 == 5 || in.Reg&7 == 2
		}
	case x86.Map0F:
		return in.Op == 0x0b || in.Op == 0xb9 || in.Op == 0xff || in.Op == 0x07
	}
	return false
}
