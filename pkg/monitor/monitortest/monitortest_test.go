package monitortest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/confinehq/confine/pkg/monitor/monitortest"
)

// root of the repository.
var root = filepath.Join("..", "..", "..")

// The example is built as somebody else's module, so that it can use nothing
// internal.
func TestExample(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	monitortest.Run(t, monitortest.Config{Path: buildOutside(t, filepath.Join(root, "examples", "monitor-poll"))})
}

// buildOutside builds the main package in a folder as a module of its own.
func buildOutside(t *testing.T, folder string) string {
	t.Helper()
	dir := t.TempDir()
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	goMod := read(t, filepath.Join(root, "go.mod"))
	version := regexp.MustCompile(`(?m)^go .*$`).Find(goMod)
	write(t, filepath.Join(dir, "go.mod"), []byte("module example.com/monitor\n\n"+string(version)+
		"\n\nrequire github.com/confinehq/confine v0.0.0\n\nreplace github.com/confinehq/confine => "+abs+"\n"))
	write(t, filepath.Join(dir, "go.sum"), read(t, filepath.Join(root, "go.sum")))
	write(t, filepath.Join(dir, "main.go"), read(t, filepath.Join(folder, "main.go")))
	plugin := filepath.Join(dir, "confine-monitor-poll")
	build := exec.Command("go", "build", "-mod=mod", "-o", plugin, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	return plugin
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
