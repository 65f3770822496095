package reach

// edgeKind says how a node was reached from another.
type edgeKind uint8

// Kinds of edges; the names of edges in analysis.Frame say what they mean.
const (
	edgeNone edgeKind = iota
	edgeEntry
	edgeInit
	edgeLate // edgeInit of a root that counts only for what nothing else reaches
	edgeCall
	edgeTable // edgeCall through a table, with arguments that aren't known
	edgeImport
	edgeTaken
	edgeLive
	edgeRefers
	edgeData
	edgeNames
	edgeOpen
	edgeExport
	edgeLookup
	edgeVariable
	edgeCallback
	edgeIndirect
)

// String is the name of an edge in a Frame.
func (k edgeKind) String() string {
	return [...]string{
		edgeEntry: "entry", edgeInit: "init", edgeLate: "init", edgeCall: "call", edgeTable: "call", edgeImport: "import", edgeTaken: "address-taken",
		edgeLive: "live", edgeRefers: "refers", edgeData: "data", edgeNames: "names", edgeOpen: "dlopen", edgeExport: "export",
		edgeLookup: "dlsym", edgeVariable: "variable", edgeCallback: "callback", edgeIndirect: "indirect",
	}[k]
}

// calls reports whether an edge is a call whose arguments can be evaluated.
func (k edgeKind) calls() bool { return k == edgeCall || k == edgeImport }
