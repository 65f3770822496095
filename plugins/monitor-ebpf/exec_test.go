package main_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func TestDescribe(t *testing.T) {
	d, err := start(t).Describe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if c := d.GetCapabilities(); !c.GetExec() || !c.GetExecMapping() || !c.GetRecordedSyscalls() || !c.GetDeniedSyscalls() {
		t.Errorf("capabilities %v, want all", c)
	}
	for _, m := range d.GetMechanisms() {
		if strings.Contains(m, "kprobe") || strings.Contains(m, "fentry") || strings.Contains(m, "lsm") {
			t.Errorf("the monitor needs %s", m)
		}
	}
}

func TestShortProcess(t *testing.T) {
	s := watchTree(t, "/bin/true")
	e := s.execOf(t, real(t, "/bin/true"))
	if e.GetFilename() != "/bin/true" || e.GetInterpreter() != "" || e.GetComm() != "true" {
		t.Errorf("exec %v", e)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/bin/true", &st); err != nil {
		t.Fatal(err)
	}
	if e.GetFile().GetInode() != st.Ino || e.GetFile().GetDevice() != st.Dev {
		t.Errorf("file %v, want inode %d on device %d", e.GetFile(), st.Ino, st.Dev)
	}
	for _, lib := range libraries(t, "/bin/true") {
		if s.mapped()[real(t, lib)] == 0 {
			t.Errorf("%s isn't among the mappings %v", lib, s.mapped())
		}
	}
	if len(s.exits) != 1 || s.exits[0].GetStatus() != 0 || s.exits[0].GetPid() != e.GetPid() {
		t.Errorf("exits %v, want one with status 0", s.exits)
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		command string
		want    syscall.WaitStatus
	}{
		{"exit 3", 3 << 8},
		{"kill -9 $$", 9},
	} {
		s := watchTree(t, "/bin/sh", "-c", c.command)
		if len(s.exits) != 1 || syscall.WaitStatus(s.exits[0].GetStatus()) != c.want {
			t.Errorf("%s: exits %v, want status %d", c.command, s.exits, c.want)
		}
	}
}

// A storm of short processes: none is missed, with the default buffers.
func TestStorm(t *testing.T) {
	const count = 3000
	nop := compile(t, "nop.c", "-static")
	s := watchTree(t, compile(t, "storm.c"), strconv.Itoa(stormCount(t, count)), "4", nop)
	if got, want := s.executed()[nop], stormCount(t, count); got != want {
		t.Errorf("%d executions seen, want %d", got, want)
	}
	if got, want := len(s.exits), stormCount(t, count)+4+1; got != want {
		t.Errorf("%d ends of processes seen, want %d", got, want)
	}
}

// stormCount lets somebody who measures ask for more executions.
func stormCount(t *testing.T, count int) int {
	text := os.Getenv("CONFINE_STORM")
	if text == "" {
		return count
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func writeScript(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScripts(t *testing.T) {
	dir := real(t, t.TempDir())
	sh := real(t, "/bin/sh")
	first := writeScript(t, filepath.Join(dir, "first"), "#!/bin/sh -e\nexit 0\n")
	second := writeScript(t, filepath.Join(dir, "second"), "#!"+first+"\n")
	third := writeScript(t, filepath.Join(dir, "third"), "#! "+second+" arg\n")
	env := writeScript(t, filepath.Join(dir, "env"), "#!/usr/bin/env sh\nexit 0\n")
	for _, c := range []struct {
		name, command, filename, path, interp string
		nested                                []string
	}{
		{"script", first, first, sh, "/bin/sh", nil},
		{"script of a script", second, second, sh, "/bin/sh", []string{first}},
		{"three deep", third, third, sh, "/bin/sh", []string{second, first}},
		{"relative", "./first", first, sh, "/bin/sh", nil},
		{"env", env, env, real(t, "/usr/bin/env"), "/usr/bin/env", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := watchTree(t, "/bin/sh", "-c", `cd "$1" && exec "$2"`, "sh", dir, c.command)
			i := slices.IndexFunc(s.execs, func(e *confinev1.Exec) bool { return e.GetInterpreter() != "" })
			if i < 0 {
				t.Fatalf("no script among %v", s.execs)
			}
			e := s.execs[i]
			if e.GetFilename() != c.filename || e.GetPath() != c.path || e.GetInterpreter() != c.interp || !slices.Equal(e.GetNested(), c.nested) {
				t.Errorf("exec %v\nwant filename %s, path %s, interpreter %s, nested %q", e, c.filename, c.path, c.interp, c.nested)
			}
		})
	}
}

func TestSymbolicLink(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	link := filepath.Join(real(t, t.TempDir()), "link")
	if err := os.Symlink(nop, link); err != nil {
		t.Fatal(err)
	}
	if e := watchTree(t, link).execOf(t, nop); e.GetFilename() != link {
		t.Errorf("exec %v, want filename %s", e, link)
	}
}

func TestExecveat(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	t.Run("memory file", func(t *testing.T) {
		s := watchTree(t, compile(t, "memory.c"), nop)
		if e := s.execOf(t, "memfd:in memory"); e.GetFilename() != "memfd:in memory" {
			t.Errorf("exec %v", e)
		}
		if s.calls("memfd:in memory") == nil {
			t.Errorf("no calls of the memory file in %v", s.snapshot.GetRecorded())
		}
	})
	t.Run("below a folder", func(t *testing.T) {
		s := watchTree(t, compile(t, "below.c"), filepath.Dir(nop), "nop")
		if e := s.execOf(t, nop); e.GetFilename() != nop {
			t.Errorf("exec %v, want filename %s", e, nop)
		}
	})
}

func TestDeletedProgram(t *testing.T) {
	nop := compile(t, "nop.c")
	load := compile(t, "load.c")
	s := watchTree(t, "/bin/sh", "-c", `exec 4<"$1"; rm "$1"; exec /proc/self/fd/4`, "sh", nop)
	s.execOf(t, nop+" (deleted)")
	lib := compileLibrary(t)
	s = watchTree(t, "/bin/sh", "-c", `exec 4<"$1"; rm "$1"; exec "$2" mmap /proc/self/fd/4`, "sh", lib, load)
	if s.mapped()[lib+" (deleted)"] == 0 {
		t.Errorf("the deleted library isn't among %v", s.mapped())
	}
}

// A failed execve isn't an execution.
func TestFailedExec(t *testing.T) {
	s := watchTree(t, "/bin/sh", "-c", "/nonexistent; /etc/passwd; true")
	if want := []string{real(t, "/bin/sh")}; !slices.Equal(s.names(), want) {
		t.Errorf("executed %v, want %v", s.names(), want)
	}
}
