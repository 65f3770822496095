package agentcmd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteConfigKeepsWhatIsThere(t *testing.T) {
	for _, c := range []struct{ name, before, after string }{
		{"no file", "", "server: s:7443\nnode: n1\n"},
		{"example", "# The server.\n#server: HOST:7443\n# The name.\n# node: NAME\nplugins: /x\n", "# The server.\nserver: s:7443\n# The name.\nnode: n1\nplugins: /x\n"},
		{"set already", "#server: example\nserver: old:1\nnode: old", "#server: example\nserver: s:7443\nnode: n1\n"},
		{"other names", "log-level: debug", "log-level: debug\nserver: s:7443\nnode: n1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "etc", "agent.yaml")
			if c.before != "" {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(c.before), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := writeConfig(path, map[string]string{"server": "s:7443", "node": "n1"}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.after {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.after)
			}
		})
	}
}
