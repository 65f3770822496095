// Package floor measures which calls a container runtime's init makes between
// loading the seccomp filter and executing the entrypoint. Every profile has to
// allow them.
package floor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// version is part of every key: measuring differently makes a new floor.
const version = 2

// lastCall is above every number of a call; the kernel's tables end before.
const lastCall = 4095

// Key is what a floor depends on.
type Key struct {
	// Runtime is the hex SHA-256 of the runtime's binary.
	Runtime    string
	NoNewPrivs bool
	// Kernel is the release, as uname -r prints it.
	Kernel string
	// Arch is the Go name of the architecture.
	Arch string
}

// Store keeps measured floors as one file each. It is safe for concurrent use.
type Store struct {
	dir string
	// measuring is held while a floor is measured: one at a time.
	measuring sync.Mutex
}

// NewStore returns the Store in a folder, which need not exist yet.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Do returns the floor of a key, which it measures and keeps when it isn't
// there or when it shall be measured anew.
func (s *Store) Do(k Key, anew bool, measure func() ([]int32, error)) ([]int32, error) {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	if !anew {
		if calls, ok := s.Get(k); ok {
			return calls, nil
		}
	}
	calls, err := measure()
	if err != nil {
		return nil, err
	}
	return calls, s.Put(k, calls)
}

func (s *Store) path(k Key) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%t\x00%s\x00%s", version, k.Runtime, k.NoNewPrivs, k.Kernel, k.Arch))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".json")
}

// entry is a file of a Store.
type entry struct {
	Key   Key
	Calls []int32
}

// Get returns the calls of a floor, sorted; false when it isn't there or the
// file is damaged.
func (s *Store) Get(k Key) ([]int32, bool) {
	raw, err := os.ReadFile(s.path(k))
	if err != nil {
		return nil, false
	}
	return decode(raw, k)
}

// decode reads a file of a Store, which must be that of a key.
func decode(raw []byte, k Key) ([]int32, bool) {
	var e entry
	if json.Unmarshal(raw, &e) != nil || e.Key != k || len(e.Calls) == 0 {
		return nil, false
	}
	if slices.ContainsFunc(e.Calls, func(nr int32) bool { return nr < 0 || nr > lastCall }) {
		return nil, false
	}
	slices.Sort(e.Calls)
	return slices.Compact(e.Calls), true
}

// Put keeps a floor.
func (s *Store) Put(k Key, calls []int32) error {
	raw, err := json.Marshal(entry{Key: k, Calls: calls})
	if err != nil {
		return fmt.Errorf("encode floor: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("create folder of floors: %w", err)
	}
	f, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return fmt.Errorf("write floor: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(k))
	}
	if err != nil {
		return fmt.Errorf("write floor: %w", err)
	}
	return nil
}
