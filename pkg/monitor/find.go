package monitor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	goplugin "github.com/hashicorp/go-plugin"
)

// pluginPrefix begins the name of every monitor's executable.
const pluginPrefix = "confine-monitor-"

// Plugin is an installed monitor.
type Plugin struct {
	Name string // NAME of confine-monitor-NAME
	Path string
}

// Find lists the monitors in a folder, sorted by name. A folder that doesn't
// exist holds none.
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
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		found = append(found, Plugin{Name: name, Path: path})
	}
	return found, nil
}

// digest is a pinned SHA-256.
type digest struct {
	raw []byte
	hex string
}

// checksum returns want, or the digest of the file when want is empty.
func checksum(path, want string) (digest, error) {
	if want != "" {
		raw, err := hex.DecodeString(want)
		if err != nil || len(raw) != sha256.Size {
			return digest{}, fmt.Errorf("checksum %q is no SHA-256 in hex", want)
		}
		return digest{raw: raw, hex: want}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return digest{}, fmt.Errorf("read %s: %w", path, err)
	}
	raw := h.Sum(nil)
	return digest{raw: raw, hex: hex.EncodeToString(raw)}, nil
}

func (d digest) secure() *goplugin.SecureConfig {
	var h hash.Hash = sha256.New()
	return &goplugin.SecureConfig{Checksum: d.raw, Hash: h}
}
