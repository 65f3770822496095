package main

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"7f00-7f10 r-xp 00002000 fd:01 77     /usr/lib/a b.so\n": {0x7f00, 0x7f10, 0x2000, 77, 0xfd01, "/usr/lib/a b.so"},
		"7f00-7f10 rwxp 00000000 00:00 0 \n":                     {start: 0x7f00, end: 0x7f10},
		"7f00-7f10 rwxp 00000000 00:00 0\n":                      {start: 0x7f00, end: 0x7f10},
		"7f00-7f10 r--p 00000000 00:01 5      /new\\012line\n":   {0x7f00, 0x7f10, 0, 5, 1, "/new\nline"},
	} {
		if got, ok := parseMapping(line); !ok || got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
	if m, ok := parseMapping("no mapping\n"); ok {
		t.Errorf("%+v from nonsense", m)
	}
}

// What isn't there any more is noticed, a hole as well as all of it.
func TestWhole(t *testing.T) {
	list := []mapping{{start: 10, end: 20}, {start: 20, end: 30}, {start: 40, end: 50}}
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
