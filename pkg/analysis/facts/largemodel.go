package facts

import (
	"debug/elf"
	"slices"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// The large code model of position-independent code (psABI, 3.5) adds 64-bit
// offsets to the address of the global offset table, which each function
// computes from its own address and another such constant:
//
//	lea  .L(%rip), %rbx; movabs $GOT-.L, %r11; add %r11, %rbx
//	movabs $f@GOTOFF, %rax; add %rbx, %rax; call *%rax
//
// So a 64-bit immediate counts as an offset from the table when that lies in
// the image.

// wideImm is a 64-bit immediate that is small enough to be such an offset.
type wideImm struct{ at, value uint64 }

// maxWide bounds the offset: an image is smaller.
const maxWide = 1 << 31

func (o *Object) wide(at uint64, v int64) {
	if v > -maxWide && v < maxWide && v != 0 {
		o.wides = append(o.wides, wideImm{at, uint64(v)})
	}
}

// gotBases returns what can be _GLOBAL_OFFSET_TABLE_.
func (o *Object) gotBases() []uint64 {
	var out []uint64
	if v, ok := o.File.Dynamic(elf.DT_PLTGOT); ok {
		out = append(out, v)
	}
	for _, s := range o.File.Sections {
		if s.Name == ".got" || s.Name == ".got.plt" {
			out = append(out, s.Addr)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// largeModel adds the references that offsets from the table make. Refs are
// sorted; those that are added aren't.
func (o *Object) largeModel() {
	if len(o.wides) == 0 {
		return
	}
	bases := o.gotBases()
	for _, w := range o.wides {
		if o.computesBase(w, bases) {
			continue
		}
		for _, base := range bases {
			to := base + w.value
			switch {
			case !o.File.InImage(to):
			case slices.ContainsFunc(o.File.Sections, func(s object.Section) bool {
				return (s.Name == ".got" || s.Name == ".got.plt") && to >= s.Addr && to < s.Addr+s.Size
			}):
				o.addRef(w.at, to, refLoad)
			case !o.code(to) || o.inFDE(to) || o.bound.has(to-o.textLo):
				o.addAddr(w.at, to, refAddr)
			}
		}
	}
	o.wides = nil
}

// maxBetween is the distance in bytes between the two instructions that compute
// the table's address.
const maxBetween = 40

// computesBase reports whether an immediate is the distance from the address
// that a neighbouring instruction computes to the table. That address is then
// no pointer to a function.
func (o *Object) computesBase(w wideImm, bases []uint64) bool {
	i := sort.Search(len(o.refs), func(i int) bool { return o.at(&o.refs[i])+maxBetween >= w.at })
	found := false
	for ; i < len(o.refs) && o.at(&o.refs[i]) <= w.at+maxBetween; i++ {
		r := &o.refs[i]
		if r.kind != refAddr && r.kind != refBase || !slices.Contains(bases, r.to+w.value) {
			continue
		}
		var in x86.Inst
		if x86.Decode(o.File.From(o.at(r)), &in) != 0 && in.RIPRel {
			r.kind, found = refBase, true
		}
	}
	return found
}
