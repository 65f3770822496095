package facts

import (
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/arm64"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// maxGeneric bounds the instructions before a call that are looked at.
const maxGeneric = 64

// generics marks the functions that call whatever they are told to with
// arguments that they read from a table, as libraries for foreign functions
// do: all registers that can hold arguments are loaded through one pointer
// before a call through another. What such code passes is known to nobody. What
// Go's closures pass of what they captured is as well known as other arguments.
func (o *Object) generics() {
	m, ok := o.mach.(interface {
		loads(code []byte) (base uint8, into []uint8)
	})
	if !ok {
		return
	}
	for _, at := range o.icalls {
		if fi := o.FuncAt(at); fi >= 0 && !o.Facts.Funcs[fi].Generic {
			o.Facts.Funcs[fi].Generic = o.generic(&o.Facts.Funcs[fi], at, m.loads)
		}
	}
}

func (o *Object) generic(fn *Func, at uint64, loads func(code []byte) (uint8, []uint8)) bool {
	args := o.mach.abi().args
	var base uint8
	loaded := 0
	for range maxGeneric {
		if at <= fn.Start {
			return false
		}
		p := o.boundary(fn, at)
		code := o.File.Bytes(p, at-p)
		if f := o.mach.flow(p, code); f.n == 0 || f.kind.ends() {
			return false
		}
		at = p
		from, into := loads(code)
		if from == o.mach.abi().goContext && o.inGo(at) {
			continue
		}
		for _, r := range into {
			i := slices.Index(args, r)
			if i < 0 {
				continue
			}
			if loaded == 0 {
				base = from
			}
			if from == base {
				loaded |= 1 << i
			}
		}
		if loaded == 1<<len(args)-1 {
			return true
		}
	}
	return false
}

// loads returns the register that an instruction loads whole registers through,
// at fixed distances, and these; none for the stack pointer, as many functions
// load arguments from their own frames.
func (amd64) loads(code []byte) (base uint8, into []uint8) {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 || in.Vector || in.Map != x86.MapOne || in.Op != 0x8b || in.OpSize != 8 || !in.IsMem() ||
		in.Base == x86.None || in.Base == x86.RSP || in.Index != x86.None {
		return 0, nil
	}
	return in.Base, []uint8{in.Reg}
}

// loads: libffi's arm64 code has the registers where the stack pointer is, so
// that counts as well, unlike the frame pointer (x29): the loader saves its own
// arguments in its frame.
func (aarch64) loads(code []byte) (base uint8, into []uint8) {
	var in arm64.Inst
	if !decodeA64(0, code, &in) || in.Op != arm64.Load || in.Vector || in.Size != 8 || in.Rm != arm64.None || in.Rn == framePointerA64 {
		return 0, nil
	}
	return in.Rn, []uint8{in.Rd, in.Ra}
}

// framePointerA64 is the frame pointer of the Arm 64-bit procedure call
// standard, section 6.4.6.
const framePointerA64 = 29

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
