package reach

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// scope says in which members an import is looked up: those of the startup
// closure, then those that were loaded together with its own.
type scope struct{ startup, from, end int32 }

func (s scope) has(m int32) bool { return m < s.startup || m >= s.from && m < s.end }

// definitions tell which members export a name, by the name's hash.
type definitions struct {
	// odd spreads hashes over the heads, by chance: no choice of names makes
	// many of them share one.
	odd   uint32
	shift uint
	heads []chain
	all   []definition
	// ifuncs are the names that a resolver chooses.
	ifuncs marks
}

// chain holds the first and the last definition of a bucket, as their indexes
// plus 1.
type chain struct{ first, last uint32 }

type definition struct {
	hash  uint32
	m     int32
	first uint32 // the first export of the name; several when names share the hash
	next  uint32 // index of the next one plus 1
}

// several stands for exports that must be looked for.
const several = math.MaxUint32

// add takes in the exports of members from one on.
func (d *definitions) add(members []*member, from int32) {
	count := len(d.all)
	for _, m := range members[from:] {
		count += len(m.facts.Exports)
	}
	if count >= len(d.heads) { // one head at least, even for none
		d.grow(count)
	}
	for i, m := range members[from:] {
		for h := range m.facts.Hashes() {
			if h.Several {
				h.First = several
			}
			d.all = append(d.all, definition{hash: h.Hash, m: from + int32(i), first: h.First})
			d.link(uint32(len(d.all)))
			if h.IFunc {
				d.ifuncs.add(h.Hash)
			}
		}
	}
}

// grow makes room for a number of definitions.
func (d *definitions) grow(count int) {
	width := uint(bits.Len(uint(count)))
	d.odd, d.shift, d.heads = rand.Uint32()|1, 32-width, make([]chain, 1<<width)
	if cap(d.all) < count {
		d.all = append(make([]definition, 0, count), d.all...)
	}
	for i := range d.all {
		d.link(uint32(i + 1))
	}
}

// link puts a definition, by its index plus 1, at the end of its chain.
func (d *definitions) link(n uint32) {
	at := &d.all[n-1]
	at.next = 0
	c := &d.heads[(at.hash*d.odd)>>d.shift]
	if c.last == 0 {
		c.first = n
	} else {
		d.all[c.last-1].next = n
	}
	c.last = n
}

// of calls visit with each member that exports a symbol, in the order in which
// they were loaded, and where its exports of it begin and end, until visit
// returns false. There are members, even if they export nothing.
func (d *definitions) of(s facts.Symbol, members []*member, visit func(m int32, first, end int) bool) {
	hash := s.Hash()
	for n := d.heads[(hash*d.odd)>>d.shift].first; n > 0; {
		at := &d.all[n-1]
		n = at.next
		if at.hash != hash {
			continue
		}
		f := members[at.m].facts
		var first, end int
		if at.first == several {
			first, end = f.Named(s)
		} else {
			first, end = f.NamedAt(at.first, s)
		}
		if first < end && !visit(at.m, first, end) {
			return
		}
	}
}

// indirect reports whether some member has the symbol of an import that a
// resolver chooses.
func (d *definitions) indirect(f *facts.Facts, imp uint32, members []*member) bool {
	if !d.ifuncs.has(f.Hash(imp)) {
		return false
	}
	found := false
	d.of(f.Symbol(imp), members, func(m int32, first, end int) bool {
		found = slices.ContainsFunc(members[m].facts.Exports[first:end], func(e facts.Export) bool { return e.IFunc })
		return !found
	})
	return found
}
