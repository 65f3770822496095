package monitor

import (
	"fmt"
	"sync"
)

// Watches keeps what a backend holds of each watch that runs, for Snapshot. The
// zero value is ready, and safe for concurrent use.
type Watches[W any] struct {
	mu  sync.Mutex
	all map[string]W
}

// Put adds a watch; remove takes it out when it ends.
func (w *Watches[W]) Put(id string, watch W) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[string]W{}
	}
	w.all[id] = watch
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, id)
	}
}

// Get returns a watch that runs; otherwise the error is ErrUnknownWatch.
func (w *Watches[W]) Get(id string) (W, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	watch, ok := w.all[id]
	if !ok {
		return watch, fmt.Errorf("watch %q: %w", id, ErrUnknownWatch)
	}
	return watch, nil
}
