package procfs

import (
	"os"
	"slices"
	"testing"
)

func TestStatFields(t *testing.T) {
	for text, want := range map[string][]string{
		"7 (sh) S 3 7":          {"S", "3", "7"},
		"7 (a) b) (c) R 12 7\n": {"R", "12", "7"},
		"":                      nil,
		"7 (sh":                 {"7", "(sh"},
	} {
		if got := StatFields([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestOwnProcess(t *testing.T) {
	pid := int32(os.Getpid())
	if parent, ok := Parent(pid); !ok || int(parent) != os.Getppid() {
		t.Errorf("parent %d, %v; want %d", parent, ok, os.Getppid())
	}
	if Namespace(pid, "mnt") == 0 || Namespace(pid, "no-such") != 0 {
		t.Errorf("namespaces %d, %d; want one and none", Namespace(pid, "mnt"), Namespace(pid, "no-such"))
	}
	const none = 1<<31 - 1 // more than there can be
	if _, ok := Parent(none); ok || Namespace(none, "mnt") != 0 || Stat(none) != nil {
		t.Error("a process that doesn't exist has facts")
	}
}

func TestInterpreter(t *testing.T) {
	for head, want := range map[string]string{
		"#!/bin/sh\nexit": "/bin/sh", "#! /usr/bin/env python3\n": "/usr/bin/env", "#!": "", "#!\n/x": "", "\x7fELF": "", "": "",
	} {
		if got := Interpreter([]byte(head)); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
}

func FuzzStatFields(f *testing.F) {
	f.Add([]byte("7 (sh) S 3 7"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		ParentIn(StatFields(text))
		Interpreter(text)
	})
}
