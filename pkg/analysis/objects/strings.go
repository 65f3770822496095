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

// ImportNames evaluates a location at every call of an import as a pointer to
// a string; key: index of the calling function.
func (o *Object) ImportNames(ctx context.Context, imp uint32, l facts.Loc) (map[uint32]Names, error) {
	name := fmt.Sprintf("s%d.%d.%d", facts.Version, imp, l)
	if _, err := o.Facts(ctx); err != nil {
		return nil, err
	}
	m, ok := o.known.namesOf(name)
	if ok {
		return m, nil
	}
	m, err := o.importNames(ctx, name, imp, l)
	if err != nil {
		return nil, err
	}
	o.known.keepNames(name, m)
	o.set.memory.answered(o.known, sizeOfNames(m))
	return m, nil
}

func (o *Object) importNames(ctx context.Context, name string, imp uint32, l facts.Loc) (map[uint32]Names, error) {
	k := o.SHA256 + "." + name
	if o.set.cache != nil {
		if data, err := o.set.cache.Get(ctx, k); err == nil && data != nil {
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
	m := map[uint32]Names{}
	for fn, list := range sites {
		var n Names
		for i := range list {
			n.Computed = n.Computed || list[i].Unresolved != "" || len(list[i].Params) > 0
			if err := o.readNames(ctx, list[i].Nrs, &n); err != nil {
				return nil, err
			}
		}
		slices.Sort(n.Known)
		n.Known = slices.Compact(n.Known)
		m[fn] = n
	}
	if o.set.cache != nil {
		if data, err := json.Marshal(m); err == nil {
			_ = o.set.cache.Put(ctx, k, data)
		}
	}
	return m, nil
}

func (o *Object) readNames(ctx context.Context, addrs []int32, n *Names) error {
	if len(addrs) == 0 {
		return nil
	}
	code, err := o.Code(ctx)
	if err != nil {
		return err
	}
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
	return nil
}
