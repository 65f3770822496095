package analysis

import (
	"context"
	"fmt"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
)

// Origin says how an object came into the analysis.
type Origin string

// Origins of objects, from the strongest evidence to the weakest.
const (
	// OriginExecuted: a monitor saw it executed, or the caller named it as an
	// entry point.
	OriginExecuted Origin = "executed"
	// OriginMapped: a monitor saw it mapped executable.
	OriginMapped Origin = "mapped"
	// OriginConfigured: the root's own configuration names it.
	OriginConfigured Origin = "configured"
	// OriginStatic: reached by analysis alone.
	OriginStatic Origin = "static"
)

// Program is one executable (ELF or script) that a container runs.
type Program struct {
	// Path inside the root.
	Path string
	// Load names objects that this program is known to load at run time
	// (seen mapped, or named by the user); their constructors and exports are
	// entry points. The startup closure needs not be named.
	Load []string
	// Origin is OriginExecuted when empty.
	Origin Origin
	// Env is the environment the program starts with, KEY=VALUE: the loader
	// variables in it count (LD_PRELOAD, LD_LIBRARY_PATH), and PATH.
	Env []string
	// Args is the argument vector as far as it is known; args[0] included.
	Args []string
	// Unwatched says that the monitor did not see all that it mapped, so that
	// Options.Observed doesn't hold for libraries that it loads by computed
	// names.
	Unwatched bool

	follows bool // another program brought it in
}

// Options change what Analyze does. The zero value is the default.
type Options struct {
	// NoFollow keeps to the closures of the named programs: what they are
	// linked with, load by name, or are said to load. It doesn't add programs
	// that they execute, nor libraries that only the root's configuration names
	// (package providers), which are reported as "configured-library".
	NoFollow bool
	// OnUnresolved says what to do about code that can make any call; Widen
	// when empty.
	OnUnresolved Unresolved
	// Observed says that a monitor watched the programs, so that files which
	// are opened by computed names are covered by what it saw: such
	// imprecision is a note then, not something missing.
	Observed bool
	// Cache, when not nil, keeps facts between calls.
	Cache FactsCache
	// Memory, when not nil, keeps what comes from Cache for analyses to come,
	// so that it isn't decoded again.
	Memory *Memory
	// Progress, when not nil, is called now and then with the number of
	// objects done and known.
	Progress func(done, total int)
	// NoArgs leaves conditions on arguments out.
	NoArgs bool
	// Surplus asks for Result.Surplus and Result.Pointers, which cost time.
	Surplus bool
	// Explain asks for Result.Explanation.
	Explain bool
	// Graph, when not nil, is called with what each program reaches, in the
	// order in which programs are analysed, and Facts with the facts of each
	// object in the end, in the order of paths. An error ends the analysis.
	Graph func(program string, t *reach.Trail) error
	Facts func(path string, f *facts.Facts) error
	// Parallel is the number of objects decoded at once; GOMAXPROCS when 0.
	Parallel int
}

// Unresolved is what to do about code that can make any system call: its number
// is computed in a way that can't be followed, or it calls any function by name.
// Each such place is in Result.Incomplete ("unresolved-number",
// "computed-call").
type Unresolved string

// Ways to go on.
const (
	// UnresolvedWiden allows every call, which is always safe.
	UnresolvedWiden Unresolved = "widen"
	// UnresolvedFail makes Analyze return an *UnresolvedError.
	UnresolvedFail Unresolved = "fail"
	// UnresolvedObserve leaves the calls of these places to what a run shows:
	// the caller adds them. Result.Incomplete says "assumed".
	UnresolvedObserve Unresolved = "observe"
)

// UnresolvedWays lists them, the default first.
func UnresolvedWays() []Unresolved {
	return []Unresolved{UnresolvedWiden, UnresolvedFail, UnresolvedObserve}
}

// UnresolvedError says which code can make any call, where that was not to be
// accepted.
type UnresolvedError struct{ Places []Issue }

// Summary is the error without the places.
func (e *UnresolvedError) Summary() string {
	places := "1 place"
	if n := len(e.Places); n > 1 {
		places = fmt.Sprintf("%d places", n)
	}
	return places + " can make any call, so that no profile was made"
}

func (e *UnresolvedError) Error() string {
	const most = 8
	var text strings.Builder
	text.WriteString(e.Summary())
	for i, p := range e.Places {
		if i == most {
			fmt.Fprintf(&text, "; and %d more", len(e.Places)-most)
			break
		}
		fmt.Fprintf(&text, "; %s: %s", p.Object, p.Detail)
	}
	return text.String()
}

// FactsCache keeps encoded facts by key. Keys hold only [a-z0-9.-].
type FactsCache interface {
	// Get returns nil, nil when there is nothing.
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, facts []byte) error
}

// Memory keeps decoded facts between analyses; it is safe for concurrent use.
type Memory = objects.Memory

// NewMemory returns a memory for about limit bytes.
func NewMemory(limit int64) *Memory { return objects.NewMemory(limit) }

// Request is what to analyse.
type Request struct {
	Root     rootfs.Root
	Programs []Program
	Options  Options
}

// Result is the outcome. All slices are sorted, so that equal input gives
// equal output.
type Result struct {
	// Platform in OCI form, "linux/amd64".
	Platform string
	// Entrypoints are the canonical paths of the programs that were analysed
	// as entry points, those that were found by following included.
	Entrypoints []string
	Objects     []Object
	Syscalls    []Syscall
	// Incomplete lists what is missing; empty is the claim that nothing is.
	Incomplete []Issue
	// Notes lists what the result rests on although nothing is missing.
	Notes []Issue
	// Unresolved are the paths of the programs that can make any call.
	Unresolved []string
	// Compat is set when an i386 object or the 32-bit gate is reachable.
	Compat bool
	// Surplus ranks what brings in the most calls, when Options.Surplus asks
	// for it.
	Surplus []Surplus
	// Pointers groups the calls of each program by the pointers in data that
	// they need, when Options.Surplus asks for it.
	Pointers []Pointers
	// Explanation is there when Options.Explain asks for it.
	Explanation *Explanation
}

// Surplus is a function or a piece of data of one program with the calls that
// only it brings in: every way to them leads through it.
type Surplus struct {
	Program string
	// Frame is what brings them in; its edge is that of the shortest chain.
	Frame
	// Calls are names, by number.
	Calls []string
	// Chain leads from an entry point to it.
	Chain []Frame
}

// Pointers are the calls of a program whose chain with the fewest pointers to
// functions in data has Count of them. Those that need none are reached by code
// alone: no finer view of data can remove them.
type Pointers struct {
	Program string
	Count   int
	// Calls are names, sorted.
	Calls []string
}

// Object is one ELF file that was analysed.
type Object struct {
	Path   string
	SHA256 string // hex
	Size   int64  // bytes
	Origin Origin
	// Cached is true when its facts came from the cache.
	Cached bool
	// Config is the file (or the function of OpenSSL) that names it, for
	// OriginConfigured.
	Config string
}

// Syscall is one call that is reachable.
type Syscall struct {
	Name string
	// Nr is its number in the platform's table, -1 for a call that 32-bit code
	// alone can make.
	Nr int
	// Args holds conditions that every site meets; empty: any arguments. Those
	// on one argument are alternatives, and an argument with some meets one.
	Args []ArgCondition
	// Reasons holds at least one chain, the shortest first.
	Reasons []Reason
}

// ArgCondition is one condition on an argument in OCI terms.
type ArgCondition struct {
	Index    uint   // 0 to 5
	Op       string // SCMP_CMP_EQ, ...
	Value    uint64
	ValueTwo uint64
}

// Reason says why a call is reachable. Kind is "site", "kernel" or
// "fallback"; see confine.v1.Reason.
type Reason struct {
	Kind string
	// Chain is the shortest one in its program. It begins with how that
	// program comes to run, and ends with the function that has the site.
	Chain  []Frame
	Detail string
	Site   Site
}

// Site is the instruction at the end of a chain.
type Site struct {
	Object  string
	Address uint64 // in the object's own addresses; 0 when it isn't known
	// Wrappers is the number of functions at the end of the chain that only
	// pass the number on: the one before them decides it.
	Wrappers int
}

// Frame is one step of a chain, from the start of a program to the site. Kind
// is
//
//	program   an executable or a script that is run
//	function  code
//	data      a part of an object's data that holds the address of what follows
//	text      a string by which what follows is found
//
// and Edge says how it was reached from the frame before:
//
//	program        it was seen running, or named
//	interpreter    a script names it in its first line
//	command        a script names it
//	exec           a program executes it, whose path it names
//	entry          the kernel or the loader starts a program there
//	init           the loader runs it: constructors, destructors, resolvers
//	call, import   it is called, within the object or as an import
//	address-taken  code takes its address
//	live           data that every thread of the program has
//	refers         code or data refers to the data
//	data           the data before it holds its address
//	names, dlopen  code or data refers to the text
//	export, dlsym  it is looked up by name
//	variable       a number is left in a variable that it reads
//	callback       a number is passed behind a pointer to it
//	indirect       a number is passed to it through a pointer
type Frame struct {
	Kind   string
	Object string // path inside the root; "" for a text
	// Symbol is a function's name, "" when there is none, the section of data,
	// or the text.
	Symbol string
	// Address is its beginning in the object's own addresses, Size its length
	// in bytes.
	Address, Size uint64
	Edge          string
}

// Issue is one imprecision or omission.
type Issue struct {
	Kind   string // kebab-case, stable
	Object string // path inside the root
	Detail string // one sentence for a person
}

// Analyze finds every system call that the programs of a request can make.
// It returns an error only when nothing can be said at all (no program could
// be read, or ctx ended); everything less is in Result.Incomplete.
func Analyze(ctx context.Context, req Request) (*Result, error) {
	return analyze(ctx, req)
}
