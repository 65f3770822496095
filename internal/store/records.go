package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// PutResult keeps a result, and its line in the list, under its id.
func (s *Store) PutResult(ctx context.Context, r *confinev1.Result, summary *confinev1.ProfileSummary) error {
	value, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("store result: %w", err)
	}
	line, err := proto.Marshal(summary)
	if err != nil {
		return fmt.Errorf("store result: %w", err)
	}
	if err := s.put(ctx, s.results, r.GetId(), value, -1); err != nil {
		return fmt.Errorf("store result: %w", err)
	}
	// The list comes second: a line never names a result that isn't there.
	if err := s.put(ctx, s.summaries, r.GetId(), line, -1); err != nil {
		return fmt.Errorf("store result: %w", err)
	}
	return nil
}

// Result returns the result with an id, or ErrNotFound.
func (s *Store) Result(ctx context.Context, id string) (*confinev1.Result, error) {
	value, _, err := s.get(ctx, s.results, id)
	if err != nil {
		return nil, fmt.Errorf("read result %s: %w", id, err)
	}
	r := new(confinev1.Result)
	if err := proto.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("read result %s: %w", id, err)
	}
	return r, nil
}

// Summaries lists the stored results, newest first.
func (s *Store) Summaries(ctx context.Context) ([]*confinev1.ProfileSummary, error) {
	var all []*confinev1.ProfileSummary
	err := s.each(ctx, s.summaries, func(key string, value []byte) error {
		line := new(confinev1.ProfileSummary)
		if err := proto.Unmarshal(value, line); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list results: %w", err)
	}
	slices.SortFunc(all, func(a, b *confinev1.ProfileSummary) int {
		if c := b.GetCreated().AsTime().Compare(a.GetCreated().AsTime()); c != 0 {
			return c
		}
		return strings.Compare(b.GetId(), a.GetId())
	})
	return all, nil
}

// PutNode keeps what is known of a node under its name.
func (s *Store) PutNode(ctx context.Context, n *confinev1.Node) error {
	value, err := proto.Marshal(n)
	if err != nil {
		return fmt.Errorf("store node: %w", err)
	}
	if err := s.put(ctx, s.nodes, n.GetName(), value, -1); err != nil {
		return fmt.Errorf("store node: %w", err)
	}
	return nil
}

// Nodes lists all nodes that ever joined, by name.
func (s *Store) Nodes(ctx context.Context) ([]*confinev1.Node, error) {
	var all []*confinev1.Node
	err := s.each(ctx, s.nodes, func(key string, value []byte) error {
		n := new(confinev1.Node)
		if err := proto.Unmarshal(value, n); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		all = append(all, n)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	slices.SortFunc(all, func(a, b *confinev1.Node) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, nil
}

// Refusals of a join token.
var (
	ErrTokenUnknown = errors.New("join token is unknown: make a new one")
	ErrTokenUsed    = errors.New("join token has been used already: make a new one")
	ErrTokenExpired = errors.New("join token has expired: make a new one")
)

// Token is what is kept of a join token; its secret is not.
type Token struct {
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	// UsedBy is the name that joined with it, "" before.
	UsedBy string `json:"used_by,omitempty"`
}

// PutToken keeps a new token under the hash of its secret, and forgets those
// that expired long ago.
func (s *Store) PutToken(ctx context.Context, hash string, t Token) error {
	if err := s.dropTokens(ctx, time.Now().Add(-24*time.Hour)); err != nil {
		return fmt.Errorf("store token: %w", err)
	}
	value, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("store token: %w", err)
	}
	if err := s.put(ctx, s.tokens, hash, value, 0); err != nil {
		return fmt.Errorf("store token: %w", err)
	}
	return nil
}

func (s *Store) dropTokens(ctx context.Context, before time.Time) error {
	var old []string
	err := s.each(ctx, s.tokens, func(key string, value []byte) error {
		var t Token
		if json.Unmarshal(value, &t) != nil || t.Expires.Before(before) {
			old = append(old, key)
		}
		return nil
	})
	for _, key := range old {
		err = errors.Join(err, translate(s.tokens.Purge(ctx, key)))
	}
	return err
}

// UseToken spends a token for name. Of several callers at once one succeeds.
func (s *Store) UseToken(ctx context.Context, hash, name string, now time.Time) (Token, error) {
	value, revision, err := s.get(ctx, s.tokens, hash)
	if errors.Is(err, ErrNotFound) {
		return Token{}, ErrTokenUnknown
	} else if err != nil {
		return Token{}, fmt.Errorf("use token: %w", err)
	}
	var t Token
	if err := json.Unmarshal(value, &t); err != nil {
		return Token{}, fmt.Errorf("use token: %w", err)
	}
	switch {
	case t.UsedBy != "":
		return Token{}, ErrTokenUsed
	case !now.Before(t.Expires):
		return Token{}, ErrTokenExpired
	}
	t.UsedBy = name
	if value, err = json.Marshal(t); err != nil {
		return Token{}, fmt.Errorf("use token: %w", err)
	}
	err = s.put(ctx, s.tokens, hash, value, int64(revision))
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return Token{}, ErrTokenUsed
	} else if err != nil {
		return Token{}, fmt.Errorf("use token: %w", err)
	}
	return t, nil
}

// States of a run.
const (
	RunActive      = "active"
	RunDone        = "done"
	RunFailed      = "failed"
	RunInterrupted = "interrupted" // the server ended while it was active
)

// Run is the record of one profile run, for people who look into a server
// after the fact.
type Run struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Image   string    `json:"image"`
	State   string    `json:"state"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// PutRun keeps the record of a run.
func (s *Store) PutRun(ctx context.Context, r Run) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store run: %w", err)
	}
	if err := s.put(ctx, s.runs, r.ID, value, -1); err != nil {
		return fmt.Errorf("store run: %w", err)
	}
	return nil
}

// Runs lists the recorded runs, oldest first.
func (s *Store) Runs(ctx context.Context) ([]Run, error) {
	var all []Run
	err := s.each(ctx, s.runs, func(_ string, value []byte) error {
		var r Run
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
		all = append(all, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	slices.SortFunc(all, func(a, b Run) int { return a.Started.Compare(b.Started) })
	return all, nil
}

// InterruptRuns marks the runs that an earlier process left active.
func (s *Store) InterruptRuns(ctx context.Context) error {
	all, err := s.Runs(ctx)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.State != RunActive {
			continue
		}
		r.State, r.Error = RunInterrupted, "the server ended during the run"
		if err := s.PutRun(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
