package facts

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// intervals cuts the code into functions: unwind ranges as they are, gaps at
// every known start.
func (o *Object) intervals() {
	n := 0
	o.eachFunc(func(lo, hi uint64) { n++ })
	fs := o.Facts.Funcs[:0] // nothing but their ranges is known yet
	if n > cap(fs) {
		fs = make([]Func, 0, n+n/16) // more starts may be found
	}
	o.eachFunc(func(lo, hi uint64) { fs = append(fs, Func{Start: lo, End: hi}) })
	slices.SortFunc(fs, func(a, b Func) int { return cmp.Compare(a.Start, b.Start) })
	o.Facts.Funcs = fs
	o.indexFuncs()
}

// funcBlock is how many bytes of code share an entry of Object.funcIndex; a
// power of 2.
const funcBlock = 256

// indexFuncs notes, for each block of code, the first function that ends in it
// or behind it.
func (o *Object) indexFuncs() {
	fs := o.Facts.Funcs
	n := int((o.textHi-o.textLo)/funcBlock) + 1
	o.funcIndex = slices.Grow(o.funcIndex[:0], n)[:n]
	f := 0
	for i := range o.funcIndex {
		for f < len(fs) && fs[f].End <= o.textLo+uint64(i)*funcBlock {
			f++
		}
		o.funcIndex[i] = uint32(f)
	}
}

// eachFunc calls f with the range of each function.
func (o *Object) eachFunc(f func(lo, hi uint64)) {
	cut := func(lo, hi uint64) {
		for lo < hi {
			next := o.nextStart(lo+1, hi)
			f(lo, next)
			lo = next
		}
	}
	fdes := o.File.FDEs
	for _, sp := range o.codeSpans() {
		pos := sp.lo
		i := sort.Search(len(fdes), func(i int) bool { return fdes[i].End > sp.lo })
		for ; i < len(fdes) && fdes[i].Start < sp.hi; i++ {
			cut(pos, max(pos, fdes[i].Start))
			lo := max(fdes[i].Start, pos)
			hi := min(fdes[i].End, sp.hi)
			if hi > lo {
				f(lo, hi)
				pos = hi
			}
		}
		cut(pos, sp.hi)
	}
}

// nextStart returns the first known start in [lo, hi), hi when there is none.
func (o *Object) nextStart(lo, hi uint64) uint64 {
	i, end := lo-o.textLo, min(hi, o.textHi)-o.textLo
	for i < end {
		if set := o.starts[i>>6] >> (i & 63); set != 0 {
			return min(o.textLo+i+uint64(bits.TrailingZeros64(set)), hi)
		}
		i = (i | 63) + 1
	}
	return hi
}

// tailTargets cuts functions without unwind entries once more, where an
// unconditional jump of another function leads: that is how a function that
// is only ever called last is entered.
func (o *Object) tailTargets() {
	again := false
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refJump || o.startsAt(r.to) || o.inFDE(r.to) {
			continue
		}
		if o.mach.flow(o.at(r), o.File.From(o.at(r))).kind != ctlJump {
			continue
		}
		if from, to := o.FuncAt(o.at(r)), o.FuncAt(r.to); from != to && to >= 0 && o.Facts.Funcs[to].Start != r.to {
			o.enter(r.to, true)
			again = true
		}
	}
	if again {
		o.intervals()
	}
}

func (o *Object) inFDE(a uint64) bool {
	_, ok := o.fde(a)
	return ok
}

// fde returns the unwind entry of an address.
func (o *Object) fde(a uint64) (object.FDE, bool) {
	fdes := o.File.FDEs
	i := sort.Search(len(fdes), func(i int) bool { return fdes[i].End > a })
	if i == len(fdes) || fdes[i].Start > a {
		return object.FDE{}, false
	}
	return fdes[i], true
}

// FuncAt returns the index of the function that holds addr, -1 when none.
func (o *Object) FuncAt(addr uint64) int {
	if addr < o.textLo || addr >= o.textHi || len(o.funcIndex) == 0 {
		return -1
	}
	fs := o.Facts.Funcs
	i := int(o.funcIndex[(addr-o.textLo)/funcBlock])
	for i < len(fs) && fs[i].End <= addr {
		i++
	}
	if i < len(fs) && fs[i].Start <= addr {
		return i
	}
	return -1
}
