package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxExplanation bounds an explanation that is read, in bytes.
const maxExplanation = 1 << 30

// PutExplanation keeps what explains a result, compressed: names and paths are
// in it many times. One that is too large isn't kept, and that is no error:
// the result says the most important without it.
func (s *Store) PutExplanation(ctx context.Context, id string, e *confinev1.Explanation) error {
	value, err := proto.Marshal(e)
	if err != nil {
		return fmt.Errorf("store explanation: %w", err)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err = w.Write(value)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("store explanation: %w", err)
	}
	if b.Len() > maxValue {
		return nil
	}
	if err := s.put(ctx, s.explanations, id, b.Bytes(), -1); err != nil {
		return fmt.Errorf("store explanation: %w", err)
	}
	return nil
}

// Explanation returns what explains the result with an id, or ErrNotFound.
func (s *Store) Explanation(ctx context.Context, id string) (*confinev1.Explanation, error) {
	value, _, err := s.get(ctx, s.explanations, id)
	if err != nil {
		return nil, fmt.Errorf("read explanation %s: %w", id, err)
	}
	r, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, fmt.Errorf("read explanation %s: %w", id, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxExplanation))
	if err != nil {
		return nil, fmt.Errorf("read explanation %s: %w", id, err)
	}
	e := new(confinev1.Explanation)
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("read explanation %s: %w", id, err)
	}
	return e, nil
}
