package facts

import (
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

// maxGeneric bounds the instructions before a call that are looked at.
const maxGeneric = 64

// generics marks the functions that call whatever they are told to with
// arguments that they read from a table, as libraries for foreign functions
// do: all registers that can hold arguments are loaded through one pointer
// before a call through another. What such code passes is known to nobody.
func (o *Object) generics() {
	if _, ok := o.mach.(amd64); !ok {
		return
	}
	for _, at := range o.icalls {
		if fi := o.FuncAt(at); fi >= 0 && !o.Facts.Funcs[fi].Generic {
			o.Facts.Funcs[fi].Generic = o.generic(&o.Facts.Funcs[fi], at)
		}
	}
}

func (o *Object) generic(fn *Func, at uint64) bool {
	args := o.mach.abi().args
	var base uint8
	loaded := 0
	var in x86.Inst
	for range maxGeneric {
		if at <= fn.Start {
			return false
		}
		p := o.boundary(fn, at)
		code := o.File.Bytes(p, at-p)
		if x86.Decode(code, &in) == 0 || o.mach.flow(p, code).kind.ends() {
			return false
		}
		at = p
		i := slices.Index(args, in.Reg)
		if in.Vector || in.Map != x86.MapOne || in.Op != 0x8b || in.OpSize != 8 || !in.IsMem() || i < 0 ||
			in.Base == x86.None || in.Base == x86.RSP || in.Index != x86.None {
			continue
		}
		if loaded == 0 {
			base = in.Base
		}
		if in.Base == base {
			if loaded |= 1 << i; loaded == 1<<len(args)-1 {
				return true
			}
		}
	}
	return false
}

// heldByOffset lists the functions that tables of Go's may hold as distances
// from the begin of the code: methods, which are called through them with
// anything. Any aligned word of 32 bits counts that is such a distance.
func (o *Object) heldByOffset() {
	if !o.Facts.Go {
		return
	}
	held := map[uint32]bool{}
	for i := range o.Facts.Regions {
		r := &o.Facts.Regions[i]
		if r.Name == ".gopclntab" || r.Name == ".eh_frame" {
			continue
		}
		b := o.File.Bytes(r.Start, r.End-r.Start)
		for p := 0; p+4 <= len(b); p += 4 {
			to := o.goText + uint64(le32(b[p:]))
			if !o.startsAt(to) {
				continue
			}
			if fi := o.FuncAt(to); fi >= 0 && o.Facts.Funcs[fi].Start == to {
				held[uint32(fi)] = true
			}
		}
	}
	if o.goSpan.hi == 0 { // the tables can't be read
		for fi := range o.Facts.Funcs {
			held[uint32(fi)] = true
		}
	}
	for fi := range held {
		o.Facts.Held = append(o.Facts.Held, fi)
	}
	sort.Slice(o.Facts.Held, func(i, j int) bool { return o.Facts.Held[i] < o.Facts.Held[j] })
}
