package analysis_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/rootfs"
)

// kept is a cache of facts.
type kept struct{ facts sync.Map }

func (k *kept) Get(_ context.Context, key string) ([]byte, error) {
	if v, ok := k.facts.Load(key); ok {
		return v.([]byte), nil
	}
	return nil, nil
}

func (k *kept) Put(_ context.Context, key string, data []byte) error {
	k.facts.Store(key, data)
	return nil
}

// TestMemory wants of analyses that share decoded facts, and run side by side,
// what one that does neither finds.
func TestMemory(t *testing.T) {
	programs := []string{"/bin/sh", "/usr/bin/env", "/bin/ls"}
	for _, p := range programs {
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			t.Skip(p + " isn't here")
		}
	}
	root, err := rootfs.NewDir("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	analyse := func(program string, o analysis.Options) (*analysis.Result, error) {
		o.NoFollow, o.Explain = true, true
		r, err := analysis.Analyze(t.Context(), analysis.Request{Root: root, Programs: []analysis.Program{{Path: program}}, Options: o})
		if r != nil {
			for i := range r.Objects {
				r.Objects[i].Cached = false
			}
		}
		return r, err
	}
	want := map[string]*analysis.Result{}
	for _, p := range programs {
		if want[p], err = analyse(p, analysis.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	cache := &kept{}
	for _, limit := range []int64{64 << 20, 1 << 20} { // the smaller one holds libc alone, or nothing
		memory := analysis.NewMemory(limit)
		for range 3 {
			var together errgroup.Group
			for _, p := range programs {
				together.Go(func() error {
					got, err := analyse(p, analysis.Options{Cache: cache, Memory: memory})
					if err == nil && !reflect.DeepEqual(got, want[p]) {
						t.Errorf("%s: another answer with a memory of %d bytes", p, limit)
					}
					return err
				})
			}
			if err := together.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
