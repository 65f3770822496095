package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/confinehq/confine/internal/agent/runner"
)

// TestSweepKeepsWhatBeginsMeanwhile starts a run after leftovers were listed
// and before they are removed.
func TestSweepKeepsWhatBeginsMeanwhile(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	dir := t.TempDir()
	r, err := runner.New(runner.Config{Socket: d.socket, Namespace: namespace, Node: "n1", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Image(t.Context(), "old", namespace, "sleeper", ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "runs", "new", "hosts")
	began := false
	removed, err := r.Sweep(t.Context(), func(id string) bool {
		if id == "old" && !began {
			began = true
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Error(err)
			}
			if _, err := r.Image(t.Context(), "new", namespace, "sleeper", ""); err != nil {
				t.Error(err)
			}
		}
		return id == "new" && began
	})
	if err != nil || !slices.Equal(removed, []string{"old"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file of the new run: %v", err)
	}
	if got, want := d.contents(t), []string{"lease confine-new"}; !slices.Equal(got, want) {
		t.Errorf("containerd holds %v, want %v", got, want)
	}
	if err := r.Remove(t.Context(), namespace, "new"); err != nil {
		t.Fatal(err)
	}
	d.mustBeEmpty(t)
}
