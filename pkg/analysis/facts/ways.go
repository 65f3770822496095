package facts

// Way is one reference of a function: what it is, and its index in the list of
// its kind.
type Way uint32

// WayKind says what a reference is.
type WayKind uint8

// Kinds of references. WaySites stands, without an index, for all sites.
const (
	WayCall    WayKind = iota // EdgeCall and EdgeFall
	WayAddress                // EdgeRef
	WayTable
	WayInner
	WayImport
	WayImportCalled
	WayRegion
	WayString
	WaySites
)

// wayBits is how many bits of a Way its index has. A list that needs more would
// itself take more memory than an object of the greatest size can make it take.
const wayBits = 28

// Kind and Index take a reference apart.
func (w Way) Kind() WayKind { return WayKind(w >> wayBits) }

// Index is the index in the list of the reference's kind.
func (w Way) Index() uint32 { return uint32(w) & (1<<wayBits - 1) }

func way(k WayKind, i uint32) Way { return Way(k)<<wayBits | Way(i) }

// Ways are the references of a function: to other functions, imports, data and
// strings, each kind in the order of Func's list, and its sites. The graph is
// followed along them, as they lie together in memory. Only facts that Build or
// Decode made have them.
func (f *Facts) Ways(fn uint32) []Way { return f.ways[f.firstWay[fn]:f.firstWay[fn+1]] }

// Generic lists the functions that are.
func (f *Facts) Generic() []uint32 { return f.generic }

// indexWays makes Ways and Generic.
func (f *Facts) indexWays() {
	n := 0
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		n += len(fn.Edges) + len(fn.Imports) + len(fn.Regions) + len(fn.Strings) + min(1, len(fn.Sites))
	}
	f.ways, f.firstWay, f.generic = make([]Way, 0, n), make([]uint32, len(f.Funcs)+1), nil
	for i := range f.Funcs {
		f.ways = f.Funcs[i].ways(f.ways)
		f.firstWay[i+1] = uint32(len(f.ways))
		if f.Funcs[i].Generic {
			f.generic = append(f.generic, uint32(i))
		}
	}
}

func (fn *Func) ways(out []Way) []Way {
	for _, e := range fn.Edges {
		out = append(out, way(e.Kind.way(), e.To))
	}
	for _, u := range fn.Imports {
		kind := WayImport
		if u.Called {
			kind = WayImportCalled
		}
		out = append(out, way(kind, u.Import))
	}
	for _, r := range fn.Regions {
		out = append(out, way(WayRegion, r))
	}
	for _, s := range fn.Strings {
		out = append(out, way(WayString, s))
	}
	if len(fn.Sites) > 0 {
		out = append(out, way(WaySites, 0))
	}
	return out
}

func (k EdgeKind) way() WayKind {
	switch k {
	case EdgeCall, EdgeFall:
		return WayCall
	case EdgeInner:
		return WayInner
	case EdgeTable:
		return WayTable
	}
	return WayAddress
}
