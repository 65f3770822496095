package facts

// args writes what is known of arguments.
func (w *writer) args(list []Arg) {
	w.count(len(list))
	for i := range list {
		a := &list[i]
		w.uint(uint64(a.At))
		w.count(len(a.Values))
		last := uint32(0)
		for _, v := range a.Values {
			w.uint(uint64(v - last))
			last = v
		}
		w.count(len(a.Params))
		for _, p := range a.Params {
			w.uint(uint64(p))
		}
	}
}

func (r *reader) args() []Arg {
	out := make([]Arg, r.count(1))
	for i := range out {
		a := &out[i]
		a.At = uint16(r.uint())
		if n := r.count(1); n > 0 {
			a.Values = r.numbers.take(n)
			last := uint32(0)
			for k := range a.Values {
				last += uint32(r.uint())
				a.Values[k] = last
			}
		}
		if n := r.count(1); n > 0 {
			a.Params = make([]Loc, n)
			for k := range a.Params {
				a.Params[k] = Loc(r.uint())
			}
		}
		if i > 0 && a.At <= out[i-1].At || len(a.Values)+len(a.Params) == 0 {
			r.bad = true
		}
	}
	return out
}

func (w *writer) passes(list []Pass) {
	w.count(len(list))
	for i := range list {
		p := &list[i]
		to := uint64(p.To) << 1
		if p.Import {
			to |= 1
		}
		w.uint(to)
		w.args(p.Args)
	}
}

func (r *reader) passes() []Pass {
	out := make([]Pass, r.count(1))
	for i := range out {
		to := r.uint()
		out[i] = Pass{To: uint32(to >> 1), Import: to&1 != 0, Args: r.args()}
		if i > 0 && comparePasses(out[i-1], out[i]) >= 0 {
			r.bad = true
		}
	}
	return out
}
