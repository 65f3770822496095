package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
)

// argument is an argument of a call: its lower 32 bits are what counts.
type argument struct {
	call  string
	index int
}

// arguments takes in what one call was made with, as strace -X raw prints it.
func (i *image) arguments(name, whole string) {
	list, ok := split(whole)
	if !ok {
		return
	}
	for _, k := range syscalls.Chooses(name) {
		text := ""
		switch {
		case name == "clone": // printed by name, in an order of strace's own
			n := slices.IndexFunc(list, func(s string) bool { return strings.HasPrefix(s, "flags=") })
			if n < 0 {
				continue
			}
			text = strings.TrimPrefix(list[n], "flags=")
		case k < len(list):
			text = list[k]
		default:
			continue // strace leaves out what a call doesn't look at
		}
		v, ok := value(text)
		if !ok {
			continue
		}
		a := argument{name, k}
		if i.args[a] == nil {
			i.args[a] = map[uint32]bool{}
		}
		i.args[a][v] = true
	}
}

// split cuts a printed call into its arguments; false when it isn't complete.
func split(whole string) ([]string, bool) {
	begin := strings.IndexByte(whole, '(')
	if begin < 0 || strings.Contains(whole, "<unfinished ...>") {
		return nil, false
	}
	var list []string
	depth, from := 0, begin+1
	for i := begin + 1; i < len(whole); i++ {
		switch c := whole[i]; c {
		case '"':
			for i++; i < len(whole) && whole[i] != '"'; i++ {
				if whole[i] == '\\' {
					i++
				}
			}
		case '<': // what a descriptor leads to
			if n := strings.IndexByte(whole[i:], '>'); n > 0 && i > 0 && whole[i-1] >= '0' && whole[i-1] <= '9' {
				i += n
			}
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return append(list, strings.TrimSpace(whole[from:i])), true
			}
		case ',':
			if depth == 0 {
				list = append(list, strings.TrimSpace(whole[from:i]))
				from = i + 1
			}
		}
	}
	return nil, false
}

// value reads a printed number, which may be several that are ored.
func value(text string) (uint32, bool) {
	v := uint32(0)
	for _, part := range strings.Split(strings.TrimPrefix(text, "|"), "|") {
		part, _, _ = strings.Cut(part, " /*")
		if u, err := strconv.ParseUint(part, 0, 64); err == nil {
			v |= uint32(u)
		} else if n, err := strconv.ParseInt(part, 0, 64); err == nil {
			v |= uint32(n)
		} else {
			return 0, false
		}
	}
	return v, true
}

// arguments holds the arguments that an image was seen to use against those
// that the analysis allows.
func (r *row) arguments(seen *image, told *analysis.Result) {
	conditions := map[argument]map[uint32]bool{}
	for _, s := range told.Syscalls {
		if len(s.Args) > 0 {
			r.Narrowed++
		}
		for _, c := range s.Args {
			a := argument{s.Name, int(c.Index)}
			if conditions[a] == nil {
				conditions[a] = map[uint32]bool{}
			}
			conditions[a][uint32(c.ValueTwo)] = true
		}
	}
	for a, values := range seen.args {
		if conditions[a] == nil {
			continue
		}
		r.Compared += len(values)
		for _, v := range slices.Sorted(maps.Keys(values)) {
			if !conditions[a][v] {
				r.MissingArgs = append(r.MissingArgs, fmt.Sprintf("%s[%d]=%s", a.call, a.index, syscalls.Describe(syscalls.AMD64, a.call, a.index, uint64(v))))
			}
		}
	}
	slices.Sort(r.MissingArgs)
}

// executable reports whether a printed mmap is for executing (PROT_EXEC, 4).
func executable(whole string) bool {
	list, ok := split(whole)
	if !ok || len(list) < 3 {
		return false
	}
	prot, ok := value(list[2])
	return ok && prot&4 != 0
}
