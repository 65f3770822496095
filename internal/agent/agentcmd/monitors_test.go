package agentcmd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/confinehq/confine/internal/agent"
	"github.com/confinehq/confine/pkg/monitor"
)

// readMonitors reads the section out of a file with this content.
func readMonitors(t *testing.T, content string) (map[string]agent.MonitorConfig, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("server: unix:///s\n"+content), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse([]string{"--config", path}); err != nil {
		t.Fatal(err)
	}
	s, err := readSettings(flags)
	if err != nil {
		return nil, err
	}
	return monitorConfigs(s.monitors)
}

func TestMonitorsSection(t *testing.T) {
	got, err := readMonitors(t, `monitors:
  ebpf:
    sha256: abc
    memory: 512MiB
    cpu-weight: 200
    files: 100
    processes: 20
    options: {ring-bytes: 16777216}
  mine:
    path: /opt/mine
    capabilities: []
  other:
    memory: 1000000
    capabilities: [CAP_BPF]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]agent.MonitorConfig{
		"ebpf": {
			SHA256: "abc", Options: map[string]string{"ring-bytes": "16777216"},
			Limits: monitor.Limits{Memory: 512 << 20, CPUWeight: 200, Files: 100, Processes: 20},
		},
		"mine":  {Path: "/opt/mine", Capabilities: []string{}},
		"other": {Limits: monitor.Limits{Memory: 1_000_000}, Capabilities: []string{"CAP_BPF"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestMistakesInMonitors(t *testing.T) {
	for content, want := range map[string]string{
		"monitors: {ebpf: {sha265: abc}}":         "sha265",
		"monitors: {ebpf: {memory: lots}}":        `"lots" is no size`,
		"monitors: {ebpf: {cpu-weight: 1000000}}": "not between 1 and 10000",
		"monitors: {ebpf: {files: many}}":         "files",
		"monitor: {ebpf: {files: 1}}":             `unknown setting "monitor.ebpf.files"`,
	} {
		if _, err := readMonitors(t, content+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
}
