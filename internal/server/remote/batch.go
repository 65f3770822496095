package remote

import (
	"context"
	"fmt"
	"sync"
)

const (
	// maxBatch is the most paths that one question holds.
	maxBatch = 1024
	// inFlight is how many questions are under way at once; what comes up
	// meanwhile goes into the next.
	inFlight = 2
)

// batcher puts questions that come up at the same time into one.
type batcher struct {
	source Source
	slots  chan struct{}

	mu sync.Mutex
	// next is the question being put together, nil when there is none.
	next *batch
}

type batch struct {
	paths []string
	index map[string]bool
	done  chan struct{}
	// answers and err are set when done is closed.
	answers map[string]*entry
	err     error
}

func newBatcher(s Source) *batcher {
	return &batcher{source: s, slots: make(chan struct{}, inFlight)}
}

// ask returns the checked answers for paths, and perhaps for others.
func (b *batcher) ask(ctx context.Context, paths []string) (map[string]*entry, error) {
	q, leader := b.join(paths)
	if leader {
		// The question belongs to all who joined it: the first of them to be
		// cancelled must not end it for the others.
		go b.send(context.WithoutCancel(ctx), q)
	}
	select {
	case <-q.done:
		return q.answers, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join adds paths to the next question; the first to join has to send it.
func (b *batcher) join(paths []string) (q *batch, leader bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil || len(b.next.paths)+len(paths) > maxBatch {
		b.next = &batch{index: map[string]bool{}, done: make(chan struct{})}
		leader = true
	}
	q = b.next
	for _, p := range paths {
		if !q.index[p] {
			q.index[p] = true
			q.paths = append(q.paths, p)
		}
	}
	return q, leader
}

func (b *batcher) send(ctx context.Context, q *batch) {
	defer close(q.done)
	b.slots <- struct{}{}
	defer func() { <-b.slots }()
	b.mu.Lock()
	if b.next == q {
		b.next = nil
	}
	b.mu.Unlock()
	q.answers, q.err = b.exchange(ctx, q.paths)
}

func (b *batcher) exchange(ctx context.Context, paths []string) (map[string]*entry, error) {
	got, err := b.source.Lookup(ctx, paths)
	if err != nil {
		return nil, err
	}
	if len(got) != len(paths) {
		return nil, fmt.Errorf("the node gave %d answers to %d questions", len(got), len(paths))
	}
	answers := make(map[string]*entry, len(paths))
	for i, p := range paths {
		if answers[p], err = check(p, got[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}
