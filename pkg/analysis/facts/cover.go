package facts

// covering are the states before some instructions of a function, as two
// questions need them.
type covering struct {
	// plain is what statesAt returns: numbers of calls are set right before
	// they are used.
	plain map[uint64]*state
	// all holds for whatever control may do: all code of the function counts,
	// also what no jump leads to (landing pads of exceptions, targets of jumps
	// that aren't understood) and labels whose addresses something keeps, and
	// what comes from there knows nothing. That matters for arguments, which
	// are set long before they are used.
	all map[uint64]*state
}

// statesCovering is statesAt for arguments, too.
func (o *Object) statesCovering(fi uint32, addrs []uint64) covering {
	it := o.interpreter(fi, addrs)
	it.seen = make(bitset, (it.fn.End-it.fn.Start)>>6+1)
	it.spend(len(it.seen) / copyCost)
	it.reach(fi, addrs)
	if it.failed {
		return covering{it.want, it.want}
	}
	plain := make(map[uint64]*state, len(addrs))
	for a, s := range it.want {
		plain[a] = s.clone()
	}
	it.rest(fi)
	if it.failed {
		for _, a := range addrs {
			it.want[a] = unknownState(o.mach.abi())
		}
	}
	return covering{plain, it.want}
}

// rest runs the code that nothing was seen to reach, and what may be reached
// with anything in the registers.
func (it *interp) rest(fi uint32) {
	o := it.o
	begin := it.fn.Start
	for _, e := range o.entries[fi] {
		if _, held := o.held[e]; held && e != it.fn.Start+1 {
			it.flow(e, unknownState(o.mach.abi()))
		}
		if e == it.fn.Start+1 && !o.isTarget(it.fn.Start) {
			begin = e // the unwind ranges of signal restorers begin a byte early
		}
	}
	it.run()
	fill := true // only padding since the last instruction that ends a block
	for at := begin; at < it.fn.End && !it.failed; {
		if !o.bound.has(at - o.textLo) {
			at++
			continue
		}
		code := o.File.Bytes(at, it.fn.End-at)
		f := o.mach.flow(at, code)
		if f.n == 0 {
			at++
			continue
		}
		if it.seen.has(at - it.fn.Start) {
			fill = f.kind.ends()
			at += uint64(f.n)
			continue
		}
		if n := o.mach.padding(code); n > 0 && fill {
			at += uint64(n)
			continue
		}
		fill = false
		it.flow(at, unknownState(o.mach.abi()))
		it.run()
		if !it.spend(1) {
			return
		}
		at += uint64(f.n)
	}
}

// held notes an address inside of a function that something keeps, so that
// control may come there with anything in its registers.
func (o *Object) hold(addr uint64) {
	if o.held == nil {
		o.held = map[uint64]struct{}{}
	}
	o.held[addr] = struct{}{}
}
