// Package facts reads one ELF object's machine code and writes down what a
// call graph needs of it: functions, where control and addresses go, which
// imports and data they reach, and where the kernel is entered with which
// numbers. Facts depend on the object's bytes alone, never change, and are
// cached by content.
//
// A function here is a range of code that is reached as a whole: the range of
// an unwind entry, or, where there is none, the bytes from one known target to
// the next. Attributing too much code to a function is imprecise and safe;
// what must never happen is that code or an address in it is not seen.
package facts

import "debug/elf"

// Version is part of every cache key: it grows with each change of what Facts
// hold or how they are found.
const Version = 25

// FlagNoDefLib is DF_1_NODEFLIB of DT_FLAGS_1: the loader's default folders
// are not searched.
const FlagNoDefLib = 0x800

// EdgeKind says how one function reaches another.
type EdgeKind uint8

// Edge kinds. EdgeCall covers direct calls and jumps, whose arguments can be
// evaluated; with EdgeRef an address was taken and anything may be passed.
const (
	EdgeCall EdgeKind = iota + 1
	EdgeRef
	EdgeTable // through a jump table
	EdgeFall  // by running on into the next function
	EdgeInner // an address was taken to compare it, or is that of a label inside of it: none to call a function by
)

// Edge leads to another function of the object, by index.
type Edge struct {
	To   uint32
	Kind EdgeKind
}

// ImportUse is the use of an import by index: called (or jumped to), or its
// address taken.
type ImportUse struct {
	Import uint32
	Called bool
}

// SiteKind is the way a site enters the kernel.
type SiteKind uint8

// Site kinds.
const (
	SiteSyscall SiteKind = iota + 1
	SiteInt80
	SiteSysenter
)

// Site is one place that enters the kernel, or a call of a wrapper that does.
type Site struct {
	Addr uint64
	Kind SiteKind
	// Nrs holds the numbers it can be made with, sorted.
	Nrs []int32
	// Params holds parameters of the function whose values are numbers too.
	Params []Loc
	// Derefs is set when one of Params is a pointer to the number; its callers
	// in the object have been asked.
	Derefs bool
	// Called is set when those who take the function's address have been
	// asked, too.
	Called bool
	// Unresolved says why the numbers are not all known, "" when they are.
	Unresolved string
	// Vars are the exports, by index, that variables with the numbers lie in:
	// the numbers are all known unless another object changes one by its name.
	Vars []uint32
	// Via is the index+1 of the wrapper that is called here, 0 for an
	// instruction that enters the kernel itself.
	Via uint32
	// Args holds what is known of arguments that choose what the calls do
	// (syscalls.Chooses), by position. The others, and those that aren't here,
	// can be anything.
	Args []Arg
}

// Func is one function.
type Func struct {
	Start, End uint64
	Edges      []Edge
	Imports    []ImportUse
	Regions    []uint32 // data regions that it refers to, by index
	Strings    []uint32 // strings that it refers to, by index into Facts.Strings
	Sites      []Site
	// Passes tells what it passes to other functions for the parameters that
	// choose what a system call does, sorted; what isn't there can be anything.
	Passes []Pass
	// Generic is set when it calls what it is told to, with arguments that it
	// reads from a table.
	Generic bool
	// ComputedJump is set when it holds an indirect jump or call.
	ComputedJump bool
}

// Region is a piece of data that is reached as a whole.
type Region struct {
	Name       string
	Start, End uint64
	Funcs      []uint32 // functions whose addresses it holds
	Imports    []uint32 // imports whose addresses it holds
	Regions    []uint32 // other regions whose addresses it holds
	Strings    []uint32
}

// Import is a symbol that the loader binds.
type Import struct {
	Name, Version string
	Weak          bool
	// Own is set when the object defines the symbol itself; OwnFunc and
	// OwnRegion then tell what it is (index+1, 0 when it isn't).
	Own       bool
	OwnFunc   uint32
	OwnRegion uint32
	// Copy is set for a copy relocation: the definition is the other one.
	Copy bool
	// Args tells what all direct calls of it in the object pass, by location;
	// what isn't there can be anything.
	Args []Arg
}

// Export is a symbol that others can bind to.
type Export struct {
	Name, Version string
	Hidden        bool   // not the default version
	Func          uint32 // index+1, 0 when it is not code
	Region        uint32 // index+1, 0 when it is not data
	IFunc         bool
}

// Facts is all that is known of one object.
type Facts struct {
	Machine elf.Machine
	Class   elf.Class
	Size    int64
	Funcs   []Func
	Regions []Region
	Imports []Import
	Exports []Export
	Strings []string
	// Entry is the function of the entry point (index+1).
	Entry uint32
	// Roots are run by the loader: constructors, destructors, resolvers.
	Roots []uint32
	// Held are functions that tables may hold in a form other than addresses, so
	// that they may be called with anything.
	Held []uint32
	// RootImports are imports in constructor arrays.
	RootImports []uint32
	// RootRegions are data that is always live: the initial thread-local data,
	// which nothing addresses by its place in the file.
	RootRegions []uint32

	Interp, Soname, RPath, RunPath string
	Needed                         []string
	NoDefLib                       bool // DF_1_NODEFLIB
	Go                             bool
	IsPIE                          bool
	// Symbols names functions for people; key: function index.
	Symbols map[uint32]string
	// Warnings lists parts that could not be read.
	Warnings []string

	// What index makes: where the exports of a name begin, the hashes of the
	// names of imports, and the number of references.
	byName   *nameTable
	hashes   []uint32
	texts    []uint32 // hashes of Strings
	links    int
	ways     []Way
	firstWay []uint32 // of each function, where its ways begin in ways; at last, where they end
	generic  []uint32
}
