package main_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// watchFirst watches a command with repeated events counted.
func watchFirst(t *testing.T, argv ...string) *seen {
	t.Helper()
	c := start(t)
	tr := newTree(t, nil, argv...)
	s := observeFirst(t, c, &confinev1.Scope{Pid: tr.pid()}, tr.run)
	s.lossless(t)
	return s
}

// repeatsOf is how often an execution of a path was counted as repeated.
func (s *seen) repeatsOf(path string) (n uint64) {
	for _, p := range s.snapshot.GetRepeated().GetPrograms() {
		if p.GetPath() == path {
			n += p.GetCount()
		}
	}
	return n
}

// Everything is either told or counted as repeated, with the file it was.
func TestRepeatedAreCounted(t *testing.T) {
	const count = 500
	nop := compile(t, "nop.c")
	s := watchFirst(t, compile(t, "storm.c", "-static"), strconv.Itoa(count), "4", nop)
	told, counted := s.executed()[nop], s.repeatsOf(nop)
	if told != 1 || counted != count-1 {
		t.Errorf("%d of %d executions told and %d counted, want one told", told, count, counted)
	}
	r := s.snapshot.GetRepeated()
	if r.GetExecs() != count-1 || r.GetExits() != count+4+1 {
		t.Errorf("repeated %v, want %d executions and %d ends", r, count-1, count+4+1)
	}
	// The loader and each library, in one program only.
	libs := libraries(t, nop)
	for _, lib := range libs {
		if n := s.mapped()[real(t, lib)]; n != 1 {
			t.Errorf("%s: %d mappings told, want 1", lib, n)
		}
	}
	if want := uint64((count - 1) * len(libs)); r.GetMappings() != want {
		t.Errorf("%d mappings counted, want %d", r.GetMappings(), want)
	}
	for _, m := range s.mappings {
		if m.GetProcess() != nop {
			t.Errorf("mapping %v, want the program %s", m, nop)
		}
	}
}

// What differs in any way that matters is told again.
func TestChangesAreTold(t *testing.T) {
	dir := real(t, t.TempDir())
	a, b := compile(t, "nop.c"), compile(t, "nop.c", "-static")
	for _, c := range []struct {
		name, script string
		path         string
		want         int
	}{
		{"same", `cp $1 x; ./x; ./x; ./x`, "x", 1},
		{"replaced by another file", `cp $1 x; ./x; ./x; cp $2 y; mv y x; ./x; ./x`, "x", 2},
		{"replaced by an equal file", `cp $1 x; ./x; cp $1 y; mv y x; ./x`, "x", 2},
		{"written to", `cp $1 x; ./x; sleep 0.02; cat $2 >x; ./x; ./x`, "x", 2},
		{"hard links, one of them", `cp $1 x; ln x y; ./x; ./y; ./x; ./y`, "x", 1},
		{"hard links, the other", `cp $1 x; ln x y; ./x; ./y; ./x; ./y`, "y", 1},
		{"asked for by another name", `cp $1 x; ln -s x l; ./x; ./l; ./x; ./l`, "x", 2},
		{"asked for by another path", `cp $1 x; ./x; $PWD/x; ./x; $PWD/x`, "x", 2},
		{"another folder of the same name", `mkdir p q p/d q/d; cp $1 p/d/x; cp $1 q/d/x; (cd p/d; ./x; ./x); (cd q/d; ./x; ./x)`, "q/d/x", 1},
		{"renamed folder", `mkdir d; cp $1 d/x; d/x; mv d e; e/x; e/x`, "e/x", 1},
		{"mapped elsewhere", `cp $1 x; ./x; mount -t tmpfs none p 2>/dev/null || mkdir -p p; cp x p/x; p/x; p/x`, "p/x", 1},
		{"script", `printf '#!/bin/sh\nexit 0\n' >s; chmod +x s; ./s; ./s; ./s`, real(t, "/bin/sh"), 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			work, err := os.MkdirTemp(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			path := c.path
			if !filepath.IsAbs(path) {
				path = filepath.Join(work, path)
			}
			s := watchFirst(t, "/bin/sh", "-c", `cd "$3"; `+c.script, "sh", a, b, work)
			if got := s.executed()[path]; got != c.want {
				t.Errorf("%s was told of %d times, want %d: %v", path, got, c.want, s.names())
			}
		})
	}
}

// A file in memory is told of each time: nothing tells its content.
func TestMemoryFilesAreTold(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	memory := compile(t, "memory.c")
	s := watchFirst(t, "/bin/sh", "-c", `"$1" "$2"; "$1" "$2"; "$1" "$2"`, "sh", memory, nop)
	if got := s.executed()["memfd:in memory"]; got != 3 {
		t.Errorf("the file in memory was told of %d times, want 3: %v", got, s.names())
	}
	if got := s.executed()[memory]; got != 1 {
		t.Errorf("%s was told of %d times, want once", memory, got)
	}
}

// What could not be sent is told of the next time.
func TestLostIsToldAgain(t *testing.T) {
	const kinds = 40
	dir := real(t, t.TempDir())
	nop, err := os.ReadFile(compile(t, "nop.c", "-static"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range kinds {
		if err := os.WriteFile(filepath.Join(dir, "p"+strconv.Itoa(i)), nop, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	client := startWith(t, map[string]string{"ring-bytes": "4096"})
	tr := newTree(t, nil, "/bin/sh", "-c", `while [ ! -e "$1/on" ]; do sleep 0.05; for p in "$1"/p*; do $p; done; : >>"$1/rounds"; done; for i in 0 1 2 3 4 5 6 7 8 9; do for p in "$1"/p*; do $p; done; sleep 0.05; done`, "sh", dir)
	s := observeFirst(t, client, &confinev1.Scope{Pid: tr.pid()}, func() {
		stopped(t, client, func() {
			tr.letGo()
			waitFor(t, filepath.Join(dir, "rounds"))
		})
		// It reads again; the last rounds are told. A buffer of a page takes them
		// one by one where the machine is busy.
		if err := os.WriteFile(filepath.Join(dir, "on"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		tr.wait()
	})
	if s.snapshot.GetLost() == 0 {
		t.Fatal("nothing was lost with a buffer of a page")
	}
	for i := range kinds {
		if p := filepath.Join(dir, "p"+strconv.Itoa(i)); s.executed()[p] == 0 {
			t.Errorf("%s was never told of: its first time was lost, and it was run again", p)
		}
	}
	var sum uint64
	for _, l := range s.snapshot.GetLosses() {
		sum += l.GetCount()
	}
	if sum != s.snapshot.GetLost() {
		t.Errorf("%d lost, %d by reason: %v", s.snapshot.GetLost(), sum, s.snapshot.GetLosses())
	}
}

// What comes into the scope from outside is told apart from what its first
// process starts.
func TestOrigin(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	client := start(t)
	dir := real(t, t.TempDir())
	tr := newTree(t, unshared(), "/bin/sh", "-c", `"$1"; "$1"; : >"$2/done"; while [ ! -e "$2/on" ]; do sleep 0.05; done`, "sh", nop, dir)
	var inner *tree
	s := observeFirst(t, client, tr.scope(), func() {
		tr.letGo()
		waitFor(t, filepath.Join(dir, "done"))
		inner = newTree(t, nil, "nsenter", "-t", strconv.Itoa(int(tr.pid())), "-m", "-p", nop)
		inner.run()
		if err := os.WriteFile(filepath.Join(dir, "on"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		tr.wait()
	})
	var origins []int32
	for _, e := range s.execs {
		if e.GetPath() == nop {
			origins = append(origins, e.GetOrigin())
		}
	}
	if len(origins) != 2 || origins[0] != tr.pid() || origins[1] == tr.pid() || origins[1] == 0 {
		t.Errorf("origins %v, want %d and another process", origins, tr.pid())
	}
	if n := s.repeatsOf(nop); n != 1 {
		t.Errorf("%d executions counted as repeated, want the second of the first process", n)
	}
}
