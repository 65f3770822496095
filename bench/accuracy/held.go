package main

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/syscalls"
)

// code is what the analysis knows of the code of one object.
type code struct {
	facts   *facts.Facts
	reached map[uint64]bool // starts of functions
	// segments are the executable parts of the file.
	segments []segment
}

// segment is a part of a file with the place where it is mapped.
type segment struct {
	addr, offset uint64
	code         []byte
}

// answer is what the analysis says of one program.
type answer struct {
	arch       syscalls.Arch
	unresolved bool             // every call is allowed
	objects    map[string]*code // by path
	allowed    map[string]bool  // names of calls
	// conditions on arguments; none for those that can be anything.
	conditions map[argument]map[uint32]bool
}

// hold returns what was executed and the answer lacks, sorted, and how many
// blocks lie in no object's file.
func (a *answer) hold(e *execution) (lacks []string, outside int) {
	found := map[string]bool{}
	unreached := map[string]uint64{} // pieces to the first address that was executed there
	for b := range e.blocks {
		switch o := a.objects[b.path]; {
		case b.path == "":
			outside++
		case o == nil:
			found["object "+b.path] = true
		default:
			for _, l := range o.block(b) {
				if first, ok := unreached[b.path+l.text]; !ok || l.at < first {
					unreached[b.path+l.text] = l.at
				}
			}
		}
	}
	for text, at := range unreached {
		found[fmt.Sprintf("%s: %#x", text, at)] = true
	}
	for c := range e.calls {
		if o := a.objects[c.path]; o != nil {
			for _, l := range a.call(o, c) {
				found[l] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), outside
}

// address is where an offset of the file is mapped, and what lies there.
func (o *code) address(offset uint64) (addr uint64, code []byte, ok bool) {
	for _, s := range o.segments {
		if at := offset - s.offset; offset >= s.offset && at < uint64(len(s.code)) {
			return s.addr + at, s.code[at:], true
		}
	}
	return 0, nil, false
}

// function returns the index of the first function that ends behind an address.
func (o *code) function(addr uint64) int {
	return sort.Search(len(o.facts.Funcs), func(i int) bool { return o.facts.Funcs[i].End > addr })
}

// piece is a part of a block that lies in no function that is reached.
type piece struct {
	text string
	at   uint64 // where it begins
}

// block returns the parts of a block that lie in no function that is reached.
func (o *code) block(b span) []piece {
	first, bytes, ok := o.address(b.first)
	if !ok {
		return []piece{{": offset lies in no segment", b.first}}
	}
	if leadsOn(o.facts.Machine, bytes, int(b.last-b.first)) {
		return nil
	}
	var out []piece
	for at, last := first, first+b.last-b.first; at <= last; {
		i := o.function(at)
		if i == len(o.facts.Funcs) || o.facts.Funcs[i].Start > at {
			return append(out, piece{fmt.Sprintf(": no function before %s", o.next(i)), at})
		}
		fn := &o.facts.Funcs[i]
		if !o.reached[fn.Start] {
			out = append(out, piece{fmt.Sprintf(": %s is not reached", o.name(i)), at})
		}
		at = fn.End
	}
	return out
}

// next names what follows code that lies in no function.
func (o *code) next(i int) string {
	if i == len(o.facts.Funcs) {
		return "the end"
	}
	return o.name(i)
}

func (o *code) name(i int) string {
	fn := &o.facts.Funcs[i]
	return strings.TrimSpace(fmt.Sprintf("[%#x,%#x) %s", fn.Start, fn.End, o.facts.Symbols[uint32(i)]))
}

// call returns what is wrong with the answer when it is asked for a call.
func (a *answer) call(o *code, c entry) []string {
	addr, _, ok := o.address(c.offset)
	name, known := syscalls.Name(a.arch, c.nr)
	if !ok || !known {
		return nil // its block is missed already, or the kernel refuses it
	}
	var out []string
	lacks := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("%s at %s+%#x %s", name, c.path, addr, fmt.Sprintf(format, args...)))
	}
	if !a.allowed[name] {
		lacks("is not allowed")
	}
	s := o.site(addr)
	if s == nil {
		lacks("is made by no site")
		return out
	}
	number := slices.Contains(s.Nrs, int32(c.nr))
	if open := len(s.Params) > 0 || len(s.Nrs) == 0 || s.Unresolved != ""; !number && !open {
		lacks("is not among the numbers %v of the site", s.Nrs)
	}
	for _, i := range syscalls.Chooses(name) {
		v := c.args[i]
		if values := a.conditions[argument{name, i}]; values != nil && !values[v] {
			lacks("has the argument %d=%#x, which is not allowed", i, v)
		}
		if arg, ok := s.At(i); ok && number && len(arg.Params) == 0 && !slices.Contains(arg.Values, v) {
			lacks("has the argument %d=%#x, and the site only %#x", i, v, arg.Values)
		}
	}
	return out
}

// site is the one that enters the kernel at an address.
func (o *code) site(addr uint64) *facts.Site {
	i := o.function(addr)
	if i == len(o.facts.Funcs) {
		return nil
	}
	for k := range o.facts.Funcs[i].Sites {
		if s := &o.facts.Funcs[i].Sites[k]; s.Via == 0 && s.Addr == addr {
			return s
		}
	}
	return nil
}
