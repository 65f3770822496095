package facts

import "unsafe"

// Footprint is about how much memory the facts take, in bytes.
func (f *Facts) Footprint() int64 {
	n := len(f.Funcs)*int(unsafe.Sizeof(Func{})) + len(f.Regions)*int(unsafe.Sizeof(Region{})) +
		len(f.Imports)*int(unsafe.Sizeof(Import{})) + len(f.Exports)*int(unsafe.Sizeof(Export{})) +
		len(f.Strings)*int(unsafe.Sizeof("")) + len(f.Symbols)*mapEntry + 4*(len(f.Imports)+len(f.Strings)+len(f.Funcs)+len(f.ways)) + 16*len(f.Exports)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		n += len(fn.Edges)*int(unsafe.Sizeof(Edge{})) + len(fn.Imports)*int(unsafe.Sizeof(ImportUse{})) + 4*(len(fn.Regions)+len(fn.Strings)) +
			len(fn.Sites)*int(unsafe.Sizeof(Site{})) + len(fn.Passes)*int(unsafe.Sizeof(Pass{}))
		for k := range fn.Sites {
			s := &fn.Sites[k]
			n += 4*len(s.Nrs) + int(unsafe.Sizeof(Loc(0)))*len(s.Params) + 4*len(s.Vars) + argsFootprint(s.Args)
		}
		for k := range fn.Passes {
			n += argsFootprint(fn.Passes[k].Args)
		}
	}
	for i := range f.Regions {
		r := &f.Regions[i]
		n += 4 * (len(r.Funcs) + len(r.Imports) + len(r.Regions) + len(r.Strings))
	}
	for i := range f.Imports {
		n += argsFootprint(f.Imports[i].Args)
	}
	// Strings share their bytes; those that can be long are counted.
	for _, s := range f.Strings {
		n += len(s)
	}
	for i := range f.Exports {
		n += len(f.Exports[i].Name)
	}
	for _, s := range f.Symbols {
		n += len(s)
	}
	return int64(n)
}

// mapEntry is about what an entry of a map of strings takes, in bytes.
const mapEntry = 40

func argsFootprint(list []Arg) int {
	n := len(list) * int(unsafe.Sizeof(Arg{}))
	for i := range list {
		n += 4*len(list[i].Values) + int(unsafe.Sizeof(Loc(0)))*len(list[i].Params)
	}
	return n
}
