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

// What the file that is installed shows can be taken as it stands.
func TestExampleOfMonitors(t *testing.T) {
	b, err := os.ReadFile("../../../deploy/config/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(b), "\n#monitors:\n")
	if !ok {
		t.Fatal("no example of monitors")
	}
	example, _, _ = strings.Cut(example, "\n\n")
	got, err := readMonitors(t, "monitors:\n"+strings.ReplaceAll("\n"+example, "\n#", "\n")+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := (monitor.Limits{}).OrDefault(); got["ebpf"].Limits != d {
		t.Errorf("it shows the limits %+v as the defaults, which are %+v", got["ebpf"].Limits, d)
	}
	if len(got) != 4 || got["mine"].Path == "" || len(got["mine"].Capabilities) != 1 || len(got["sysdig"].Options) != 2 {
		t.Errorf("%+v", got)
	}
}
