package objects

import (
	"context"
	"fmt"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// ImportSites evaluates a location at every call of an import in the object;
// key: index of the calling function. What it finds is kept in the cache, too.
func (o *Object) ImportSites(ctx context.Context, imp uint32, l facts.Loc) (map[uint32][]facts.Site, error) {
	f, err := o.Facts(ctx)
	if err != nil {
		return nil, err
	}
	return o.sites(ctx, fmt.Sprintf("i%d.%d.%d", facts.Version, imp, l), func(code *facts.Object) map[uint32][]facts.Site {
		m := map[uint32][]facts.Site{}
		for i := range f.Funcs {
			for _, use := range f.Funcs[i].Imports {
				if use.Import == imp && use.Called {
					m[uint32(i)] = code.ImportCalls(uint32(i), imp, l)
				}
			}
		}
		return m
	})
}

// IndirectSites evaluates a location at every call through a pointer in the
// object; key: index of the calling function.
func (o *Object) IndirectSites(ctx context.Context, l facts.Loc) (map[uint32][]facts.Site, error) {
	return o.sites(ctx, fmt.Sprintf("x%d.%d", facts.Version, l), func(code *facts.Object) map[uint32][]facts.Site {
		return code.IndirectCalls(l)
	})
}

// sites returns what compute finds in the object's code, or what it found at
// an earlier time; name says what that is.
func (o *Object) sites(ctx context.Context, name string, compute func(*facts.Object) map[uint32][]facts.Site) (map[uint32][]facts.Site, error) {
	f, err := o.Facts(ctx)
	if err != nil {
		return nil, err
	}
	k := o.SHA256 + "." + name
	if o.set.cache != nil {
		if data, err := o.set.cache.Get(ctx, k); err == nil && data != nil {
			if m, err := facts.DecodeSites(data); err == nil && valid(m, len(f.Funcs)) {
				return m, nil
			}
		}
	}
	code, err := o.Code(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	m := compute(code)
	o.mu.Unlock()
	if o.set.cache != nil {
		_ = o.set.cache.Put(ctx, k, facts.EncodeSites(m))
	}
	return m, nil
}

// Passed evaluates a location at every direct call from function c to function
// w of the object.
func (o *Object) Passed(ctx context.Context, c, w uint32, l facts.Loc) ([]facts.Site, error) {
	code, err := o.Code(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return code.Passed(c, w, l), nil
}

func valid(m map[uint32][]facts.Site, funcs int) bool {
	for i := range m {
		if int(i) >= funcs {
			return false
		}
	}
	return true
}
