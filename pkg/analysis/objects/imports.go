package objects

import (
	"context"
	"fmt"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

func sitesKey(imp uint32, l facts.Loc) string {
	return fmt.Sprintf("i%d.%d.%d", facts.Version, imp, l)
}

func passedKey(w uint32, l facts.Loc) string {
	return fmt.Sprintf("p%d.%d.%d", facts.Version, w, l)
}

// ImportSites evaluates a location at every call of an import in the object;
// key: index of the calling function. What it finds is kept in the cache, too.
func (o *Object) ImportSites(ctx context.Context, imp uint32, l facts.Loc) (map[uint32][]facts.Site, error) {
	return o.sites(ctx, sitesKey(imp, l), func(code *facts.Object) map[uint32][]facts.Site {
		return importSites(code, imp, l)
	})
}

// IndirectSites evaluates a location at every call through a pointer in the
// object; key: index of the calling function.
func (o *Object) IndirectSites(ctx context.Context, l facts.Loc) (map[uint32][]facts.Site, error) {
	return o.sites(ctx, fmt.Sprintf("x%d.%d", facts.Version, l), func(code *facts.Object) map[uint32][]facts.Site {
		return code.IndirectCalls(l)
	})
}

// PassedTo evaluates a location at every direct call of function w by others of
// the object; key: index of the calling function.
func (o *Object) PassedTo(ctx context.Context, w uint32, l facts.Loc) (map[uint32][]facts.Site, error) {
	return o.sites(ctx, passedKey(w, l), func(code *facts.Object) map[uint32][]facts.Site {
		return passedTo(code, w, l)
	})
}

// sites returns what compute finds in the object's code, or what it found at
// an earlier time; name says what that is.
func (o *Object) sites(ctx context.Context, name string, compute func(*facts.Object) map[uint32][]facts.Site) (map[uint32][]facts.Site, error) {
	f, err := o.Facts(ctx)
	if err != nil {
		return nil, err
	}
	m, ok, unsaved := o.known.answer(name)
	if unsaved {
		o.save(ctx, name, m)
	}
	if ok {
		return m, nil
	}
	if m = o.kept(ctx, name, len(f.Funcs)); m == nil {
		code, err := o.Code(ctx)
		if err != nil {
			return nil, err
		}
		o.mu.Lock()
		m = compute(code)
		o.mu.Unlock()
		o.save(ctx, name, m)
	}
	o.known.keepAnswer(name, m, false)
	o.set.memory.answered(o.known, sizeOf(m))
	return m, nil
}

// save keeps an answer in the cache. One that can't be kept is one all the same.
func (o *Object) save(ctx context.Context, name string, m map[uint32][]facts.Site) {
	if o.set.cache != nil {
		_ = o.set.cache.Put(ctx, o.SHA256+"."+name, facts.EncodeSites(m))
	}
}

// kept reads an answer from the cache, nil when it isn't there.
func (o *Object) kept(ctx context.Context, name string, funcs int) map[uint32][]facts.Site {
	if o.set.cache == nil {
		return nil
	}
	data, err := o.set.cache.Get(ctx, o.SHA256+"."+name)
	if err != nil || data == nil {
		return nil
	}
	m, err := facts.DecodeSites(data)
	if err != nil || !valid(m, funcs) {
		return nil
	}
	return m
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
