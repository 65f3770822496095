package agentcmd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/confinehq/confine/internal/agent"
	"github.com/confinehq/confine/pkg/monitor"
)

// monitorSettings are what the file says about one monitor.
type monitorSettings struct {
	Path   string `koanf:"path"`
	SHA256 string `koanf:"sha256"`
	// Capabilities is nil when the file doesn't speak of them.
	Capabilities *[]string         `koanf:"capabilities"`
	Memory       string            `koanf:"memory"`
	CPUWeight    uint64            `koanf:"cpu-weight"`
	Files        uint64            `koanf:"files"`
	Processes    uint64            `koanf:"processes"`
	Options      map[string]string `koanf:"options"`
}

// monitorConfigs translates the section of the file.
func monitorConfigs(all map[string]monitorSettings) (map[string]agent.MonitorConfig, error) {
	out := make(map[string]agent.MonitorConfig)
	for name, s := range all {
		memory, err := bytesOf(s.Memory)
		if err != nil {
			return nil, fmt.Errorf("read configuration: monitors: %s: memory: %w", name, err)
		}
		if s.CPUWeight > 10_000 {
			return nil, fmt.Errorf("read configuration: monitors: %s: cpu-weight: %d is not between 1 and 10000", name, s.CPUWeight)
		}
		c := agent.MonitorConfig{
			Path: s.Path, SHA256: s.SHA256, Options: s.Options,
			Limits: monitor.Limits{Memory: memory, Files: s.Files, Processes: s.Processes, CPUWeight: s.CPUWeight},
		}
		if s.Capabilities != nil {
			c.Capabilities = append([]string{}, *s.Capabilities...)
		}
		out[name] = c
	}
	return out, nil
}

// bytesOf reads a size: a number of bytes, or of KiB, MiB or GiB with that
// behind it. "" is 0.
func bytesOf(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	digits, shift := text, 0
	for unit, s := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, ok := strings.CutSuffix(text, unit); ok {
			digits, shift = strings.TrimSpace(rest), s
		}
	}
	n, err := strconv.ParseUint(digits, 10, 34)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no size: give one such as 512MiB", text)
	}
	return n << shift, nil
}
