package objects

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// maxName bounds the strings that are read as names, in bytes.
const maxName = 4096

// Names are the strings that an argument can point to.
type Names struct {
	Known []string
	// Computed is set when the argument can be something else, too.
	Computed bool
}

func namesKey(imp uint32, l facts.Loc) string {
	return fmt.Sprintf("s%d.%d.%d", facts.Version, imp, l)
}

// ImportNames evaluates a location at every call of an import as a pointer to
// a string; key: index of the calling function.
func (o *Object) ImportNames(ctx context.Context, imp uint32, l facts.Loc) (map[uint32]Names, error) {
	name := namesKey(imp, l)
	if _, err := o.Facts(ctx); err != nil {
		return nil, err
	}
	m, ok, unsaved := o.known.namesOf(name)
	if unsaved {
		o.saveNames(ctx, name, m)
	}
	if ok {
		return m, nil
	}
	m, err := o.importNames(ctx, name, imp, l)
	if err != nil {
		return nil, err
	}
	o.known.keepNames(name, m, false)
	o.set.memory.answered(o.known, sizeOfNames(m))
	return m, nil
}

func (o *Object) importNames(ctx context.Context, name string, imp uint32, l facts.Loc) (map[uint32]Names, error) {
	if o.set.cache != nil {
		if data, err := o.set.cache.Get(ctx, o.SHA256+"."+name); err == nil && data != nil {
			var m map[uint32]Names
			if json.Unmarshal(data, &m) == nil {
				return m, nil
			}
		}
	}
	sites, err := o.ImportSites(ctx, imp, l)
	if err != nil {
		return nil, err
	}
	var code *facts.Object
	if anyNumber(sites) {
		if code, err = o.Code(ctx); err != nil {
			return nil, err
		}
	}
	m := readAll(code, sites)
	o.saveNames(ctx, name, m)
	return m, nil
}

func (o *Object) saveNames(ctx context.Context, name string, m map[uint32]Names) {
	if o.set.cache == nil {
		return
	}
	if data, err := json.Marshal(m); err == nil {
		_ = o.set.cache.Put(ctx, o.SHA256+"."+name, data)
	}
}

// anyNumber reports whether some site has a constant.
func anyNumber(sites map[uint32][]facts.Site) bool {
	for _, list := range sites {
		if slices.ContainsFunc(list, func(s facts.Site) bool { return len(s.Nrs) > 0 }) {
			return true
		}
	}
	return false
}

// readAll reads the strings that the constants of sites point to. code may be
// nil when there is none.
func readAll(code *facts.Object, sites map[uint32][]facts.Site) map[uint32]Names {
	m := map[uint32]Names{}
	for fn, list := range sites {
		var n Names
		for i := range list {
			n.Computed = n.Computed || list[i].Unresolved != "" || len(list[i].Params) > 0
			readNames(code, list[i].Nrs, &n)
		}
		slices.Sort(n.Known)
		n.Known = slices.Compact(n.Known)
		m[fn] = n
	}
	return m
}

func readNames(code *facts.Object, addrs []int32, n *Names) {
	for _, a := range addrs {
		if a == 0 {
			continue // dlopen(NULL): the program itself
		}
		s, ok := code.File.CString(uint64(uint32(a)), maxName)
		if !ok {
			n.Computed = true
			continue
		}
		n.Known = append(n.Known, s)
	}
}
