// Package factsdir keeps facts about objects in a folder, for analyses
// without a server.
package factsdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/confinehq/confine/pkg/analysis"
)

// keyPattern is what analysis.FactsCache promises about keys; it keeps them
// from leaving the folder.
var keyPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,199}$`)

// Dir is a folder with one file for each key. Several processes may use it at
// the same time.
type Dir struct {
	path string
}

var _ analysis.FactsCache = (*Dir)(nil)

// Open makes the folder when there is none.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open facts cache: %w", err)
	}
	return &Dir{path: path}, nil
}

// Get implements analysis.FactsCache.
func (d *Dir) Get(_ context.Context, key string) ([]byte, error) {
	name, err := d.name(key)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	return data, nil
}

// Put implements analysis.FactsCache. A reader sees all of it or nothing.
func (d *Dir) Put(_ context.Context, key string, facts []byte) error {
	name, err := d.name(key)
	if err != nil {
		return err
	}
	if err := d.put(name, facts); err != nil {
		return fmt.Errorf("keep facts: %w", err)
	}
	return nil
}

func (d *Dir) put(name string, facts []byte) error {
	f, err := os.CreateTemp(d.path, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(facts); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func (d *Dir) name(key string) (string, error) {
	if !keyPattern.MatchString(key) {
		return "", fmt.Errorf("facts key %q holds characters that it may not", key)
	}
	return filepath.Join(d.path, key), nil
}
