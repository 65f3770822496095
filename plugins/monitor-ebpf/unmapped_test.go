package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// A file's name needs not be text, and is sent as text all the same.
func TestMappingsAreText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a\xffb\r")
	if err := os.WriteFile(path, make([]byte, os.Getpagesize()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(data)
	own, err := mappings(uint32(os.Getpid()), 0, ^uint64(0))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(own, func(m procfs.Mapping) bool { return strings.HasSuffix(m.Name, "/a\uFFFDb\r") }) {
		t.Errorf("no mapping of %q among %+v", path, own)
	}
}

// What isn't there any more is noticed, a hole as well as all of it.
func TestWhole(t *testing.T) {
	list := []procfs.Mapping{{Start: 10, End: 20}, {Start: 20, End: 30}, {Start: 40, End: 50}}
	for _, c := range []struct {
		start, end uint64
		want       bool
	}{{10, 30, true}, {12, 13, true}, {10, 50, false}, {30, 40, false}, {45, 60, false}, {5, 15, false}} {
		if got := whole(list, c.start, c.end); got != c.want {
			t.Errorf("%d to %d: %v, want %v", c.start, c.end, got, c.want)
		}
	}
}

// A process that has ended but was not waited for has no mappings, which is no
// proof that it had none.
func TestMappingsOfTheDead(t *testing.T) {
	cmd := exec.Command("/bin/true")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	for b := make([]byte, 1); ; {
		if _, err := out.Read(b); err != nil {
			break // it has closed its files, and with them its memory before
		}
	}
	if list, err := mappings(uint32(cmd.Process.Pid), 0, ^uint64(0)); err == nil {
		t.Errorf("%d mappings of a process that has ended", len(list))
	}
	own, err := mappings(uint32(os.Getpid()), 0, ^uint64(0))
	if err != nil || len(own) == 0 || errors.Is(err, errNoMappings) {
		t.Errorf("%d own mappings, error %v", len(own), err)
	}
}
