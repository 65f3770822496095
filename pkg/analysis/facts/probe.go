package facts

// probeSlots is the size of a probe's table: a power of 2, several times
// maxProbe.
const probeSlots = 4 * maxProbe

// probe is the set of addresses that one look at code came through. It is
// emptied in no time, as there is a look for each target in a gap.
type probe struct {
	at    [probeSlots]uint64
	round [probeSlots]uint32 // the look that put an address into a slot
	now   uint32
	n     int
}

// clear empties the set.
func (p *probe) clear() {
	p.n = 0
	if p.now++; p.now == 0 {
		*p = probe{now: 1}
	}
}

// slot is where an address is, or belongs.
func (p *probe) slot(a uint64) int {
	i := int(a * 0x9e3779b97f4a7c15 >> 32 & (probeSlots - 1)) // golden ratio, as Knuth has it for hashing
	for p.round[i] == p.now && p.at[i] != a {
		i = (i + 1) % probeSlots
	}
	return i
}

func (p *probe) has(a uint64) bool { return p.round[p.slot(a)] == p.now }

// add takes in an address that isn't there; there are at most maxProbe.
func (p *probe) add(a uint64) {
	i := p.slot(a)
	p.at[i], p.round[i] = a, p.now
	p.n++
}
