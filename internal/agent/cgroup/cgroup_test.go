package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRemove(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("control groups need root")
	}
	mounts, err := hierarchies()
	if err != nil || len(mounts) == 0 {
		t.Fatalf("hierarchies: %v, %v", mounts, err)
	}
	made := func(name string) []string {
		var dirs []string
		for _, m := range mounts {
			d := filepath.Join(m, name)
			if err := os.MkdirAll(filepath.Join(d, "inner"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(filepath.Join(d, "inner")); _ = os.Remove(d) })
			dirs = append(dirs, d)
		}
		return dirs
	}
	ours, others := made("confine-cgroup-test"), made("x-cgroup-test")
	for _, path := range []string{"/confine-cgroup-test", "/x-cgroup-test", "system.slice:confine:confine-cgroup-test", "/confine-never-made"} {
		if err := Remove(path); err != nil {
			t.Errorf("Remove(%q): %v", path, err)
		}
	}
	for _, d := range ours {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is still there", d)
		}
	}
	for _, d := range others {
		if _, err := os.Stat(d); err != nil {
			t.Errorf("a group of somebody else was removed: %v", err)
		}
	}
}
