package facts

import "slices"

// importArgs writes down what all calls of each import pass, where the straight
// code before every one of them says so. Which imports come to a system call,
// other objects tell once they are known; what is asked for by name (askImports)
// is known better, function by function.
func (o *Object) importArgs() {
	c := importCalls{o: o, at: map[uint64]int{}, calls: make([]importCall, len(o.Facts.Imports))}
	entered := o.enteredSomehow()
	for i := range o.Facts.Funcs {
		// As callers of what the stubs of the procedure linkage table lead to
		// count those of the stubs.
		if len(o.Facts.Funcs[i].Imports) > 0 && (entered[i] || !o.stubs(i)) {
			c.function(uint32(i))
		}
	}
	for i := range c.calls {
		o.Facts.Imports[i].Args = c.calls[i].args
	}
}

// enteredSomehow tells of each function whether anything of the object, or
// something else by name, leads to it or into it.
func (o *Object) enteredSomehow() []bool {
	f := o.Facts
	in := make([]bool, len(f.Funcs)+1) // by index plus 1
	for i := range f.Funcs {
		for _, e := range f.Funcs[i].Edges {
			in[e.To+1] = true
		}
	}
	for i := range f.Regions {
		for _, fn := range f.Regions[i].Funcs {
			in[fn+1] = true
		}
	}
	for i := range f.Exports {
		in[f.Exports[i].Func] = true
	}
	for _, list := range [][]uint32{f.Held, f.Roots} {
		for _, fn := range list {
			in[fn+1] = true
		}
	}
	in[f.Entry] = true
	return in[1:]
}

// importCalls are the calls of all imports of an object.
type importCalls struct {
	o     *Object
	at    map[uint64]int // the import that a jump to a place leads to, -1 for none
	calls []importCall   // by import
	found []uint32       // imports whose calls in a function were seen
}

// importCall is what the calls of one import that were seen so far pass.
type importCall struct {
	args []Arg
	seen bool // some call was; without args it then passes anything
}

// function adds the calls of one function.
func (c *importCalls) function(fi uint32) {
	o, fn := c.o, &c.o.Facts.Funcs[fi]
	c.found = c.found[:0]
	for i := o.firstRef(fn.Start); i < len(o.refs) && o.at(&o.refs[i]) < fn.End; i++ {
		imp := c.leads(fn, &o.refs[i])
		if imp < 0 {
			continue
		}
		c.found = append(c.found, uint32(imp))
		if k := &c.calls[imp]; !k.seen || len(k.args) > 0 {
			at := o.at(&o.refs[i])
			k.add(o.passedNear(fi, callSite{at, o.calls(at)}, k))
		}
	}
	for _, use := range fn.Imports {
		if use.Called && !slices.Contains(c.found, use.Import) {
			c.calls[use.Import].add(nil)
		}
	}
}

// leads returns the import that a reference calls, -1 when it calls none.
func (c *importCalls) leads(fn *Func, r *ref) int {
	switch {
	case r.kind == refSlot:
		return c.o.slotImport(r.to)
	case r.kind != refJump || r.to >= fn.Start && r.to < fn.End:
		return -1
	}
	imp, known := c.at[r.to]
	if !known {
		imp = -1
		if slot, ok := c.o.pltSlot(r.to); ok {
			imp = c.o.slotImport(slot)
		}
		c.at[r.to] = imp
	}
	return imp
}

// slotImport returns the import whose address the loader writes to a slot, -1
// when it is none.
func (o *Object) slotImport(slot uint64) int {
	i, ok := o.relocAt[slot]
	if !ok || o.File.Relocs[i].Sym < 0 {
		return -1
	}
	if imp, ok := o.imports[o.File.Relocs[i].Sym]; ok {
		return int(imp)
	}
	return -1
}

// add takes in what one more call passes.
func (k *importCall) add(args []Arg) {
	if k.seen {
		args = meet(k.args, args)
	}
	k.args, k.seen = args, true
}

// passedNear finds the constants that a call passes, as the straight code before
// it tells: those that other calls of its import pass, too, or, without any, all.
func (o *Object) passedNear(fi uint32, c callSite, others *importCall) []Arg {
	if o.mach.abi().kernelArgs == nil {
		return nil
	}
	var locs []Loc
	if others != nil && others.seen {
		for i := range others.args {
			locs = append(locs, Loc(others.args[i].At))
		}
	} else {
		locs = o.argLocs()
	}
	if _, ok := o.mach.(mover); ok {
		args, _ := o.quick(fi, c, locs)
		return args
	}
	var args []Arg
	s := o.near(fi, c.at)
	for _, l := range locs {
		if a, ok := argOf(s.at(l, c.call)); ok && len(a.Params) == 0 {
			a.At = uint16(l)
			args = append(args, a)
		}
	}
	return args
}

// argLocs are the registers in which functions get their arguments, sorted.
func (o *Object) argLocs() []Loc {
	var locs []Loc
	for _, r := range o.mach.abi().args {
		locs = append(locs, Loc(r))
	}
	slices.Sort(locs)
	return locs
}
