package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// pluginPrefix begins the name of every monitor's executable.
const pluginPrefix = "confine-monitor-"

// Plugin is an installed monitor.
type Plugin struct {
	Name string // NAME of confine-monitor-NAME
	Path string
}

// Find lists the monitors in a folder, sorted by name, those included that
// can't be started because of what their file is: starting them says so. A
// folder that doesn't exist holds none.
func Find(dir string) ([]Plugin, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find monitors: %w", err)
	}
	var found []Plugin
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		name, ok := strings.CutPrefix(e.Name(), pluginPrefix)
		if !ok || name == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		found = append(found, Plugin{Name: name, Path: path})
	}
	return found, nil
}
