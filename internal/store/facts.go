package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Facts is the cache of analysis facts. It is a cache: a value that is too
// large isn't kept, and when the cache is full the older half goes.
type Facts struct{ s *Store }

// Facts returns the facts cache, an analysis.FactsCache.
func (s *Store) Facts() *Facts { return &Facts{s} }

// Get returns nil, nil when there is nothing under key.
func (f *Facts) Get(ctx context.Context, key string) ([]byte, error) {
	value, _, err := f.s.get(ctx, f.s.facts, key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read facts %s: %w", key, err)
	}
	return value, nil
}

// Put keeps facts under key.
func (f *Facts) Put(ctx context.Context, key string, facts []byte) error {
	if len(facts) > maxValue {
		return nil
	}
	err := f.s.put(ctx, f.s.facts, key, facts, -1)
	if isBucketFull(err) {
		if err = f.halve(ctx); err == nil {
			err = f.s.put(ctx, f.s.facts, key, facts, -1)
		}
	}
	if err != nil {
		return fmt.Errorf("store facts %s: %w", key, err)
	}
	return nil
}

// halve forgets the older half of the cache.
func (f *Facts) halve(ctx context.Context) error {
	info, err := f.s.factsStream.Info(ctx)
	if err != nil {
		return translate(err)
	}
	return translate(f.s.factsStream.Purge(ctx, jetstream.WithPurgeKeep(info.State.Msgs/2)))
}

// isBucketFull tells a bucket's own limit from a full disk.
func isBucketFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Description == "maximum bytes exceeded"
}
