package reach

import (
	"math/bits"
	"math/rand/v2"

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
}

// chain holds the first and the last definition of a bucket, as their indexes
// plus 1.
type chain struct{ first, last uint32 }

type definition struct {
	hash  uint32
	m     int32
	ifunc bool   // a resolver chooses one of those that have the hash
	next  uint32 // index of the next one plus 1
}

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
		for hash, ifunc := range m.facts.Hashes() {
			d.all = append(d.all, definition{hash: hash, m: from + int32(i), ifunc: ifunc})
			d.link(uint32(len(d.all)))
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

// of calls visit with each member that may export a symbol, in the order in
// which they were loaded, until it returns false. There are members, even if
// they export nothing.
func (d *definitions) of(s facts.Symbol, visit func(m int32) bool) {
	hash := s.Hash()
	for n := d.heads[(hash*d.odd)>>d.shift].first; n > 0; n = d.all[n-1].next {
		if at := &d.all[n-1]; at.hash == hash && !visit(at.m) {
			return
		}
	}
}

// indirect reports whether some member has a symbol that a resolver chooses.
func (d *definitions) indirect(s facts.Symbol, members []*member) bool {
	hash, found := s.Hash(), false
	for n := d.heads[(hash*d.odd)>>d.shift].first; n > 0 && !found; n = d.all[n-1].next {
		at := &d.all[n-1]
		if at.hash != hash || !at.ifunc {
			continue
		}
		f := members[at.m].facts
		first, end := f.Named(s)
		for i := first; i < end; i++ {
			found = found || f.Exports[i].IFunc
		}
	}
	return found
}
