package explain

import (
	"fmt"
	"path"

	"github.com/ianlancetaylor/demangle"
)

// longestName bounds a demangled name: a power of two, in bytes.
const longestName = 12

// Demangle returns a symbol as C++ or Rust write it, "" for one that is no
// mangled name.
func Demangle(symbol string) string {
	if len(symbol) > 4096 { // it comes from a file that anybody made
		return ""
	}
	// A short symbol can stand for a name of any length, which refers to parts of
	// itself again and again.
	name, err := demangle.ToString(symbol, demangle.NoParams, demangle.NoClones, demangle.LLVMStyle, demangle.MaxLength(longestName))
	if err != nil || name == symbol {
		return ""
	}
	return name
}

// Name is what a person reads for a frame.
func (f Frame) Name() string {
	switch {
	case f.Kind == "program":
		return f.Object
	case f.Kind == "text":
		return fmt.Sprintf("%q", f.Symbol)
	case f.Demangled != "":
		return f.Demangled
	case f.Symbol != "":
		return f.Symbol
	}
	return fmt.Sprintf("function +%#x", f.Address)
}

// verb says how a frame is reached, with the frame before as the subject.
func (f Frame) verb() string {
	switch f.Edge {
	case "program":
		return "program"
	case "interpreter":
		return "needs interpreter"
	case "command":
		return "runs"
	case "exec":
		return "executes"
	case "entry":
		return "starts at"
	case "live":
		return "always has"
	case "init":
		return "has it run"
	case "call":
		return "calls"
	case "import":
		return "calls import"
	case "address-taken":
		return "takes address of"
	case "refers":
		return "refers to"
	case "data":
		return "holds address of"
	case "names":
		return "names"
	case "dlopen":
		return "loads"
	case "export":
		return "is looked up"
	case "dlsym":
		return "looks up"
	case "variable":
		return "leaves number to"
	case "callback":
		return "passes callback"
	case "indirect":
		return "calls by pointer"
	}
	return f.Edge
}

// place is where a frame is, as debuggers write it.
func (f Frame) place() string {
	switch {
	case f.Kind == "program" || f.Kind == "text":
		return ""
	case f.Kind == "data":
		return fmt.Sprintf("+%#x..%#x", f.Address, f.Address+f.Size)
	case f.Symbol == "":
		return ""
	}
	return fmt.Sprintf("+%#x", f.Address)
}

// at is an address in an object.
func at(object string, address uint64) string {
	return fmt.Sprintf("%s+%#x", path.Base(object), address)
}
