package monitortest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// loop executes a program many times, one after the other, with nothing to
// read.
const loop = `i=0; while [ $i -lt $1 ]; do "$2" </dev/null; i=$((i+1)); done`

// program: a dynamically linked one, with all that is told of it.
func (s *suite) program(t *testing.T) {
	path := dynamic(t)
	b := newBox(t, nil, path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	e := r.exec(path)
	if e.GetPid() != b.pid() {
		t.Errorf("process %d, want %d: the number in the host's namespace", e.GetPid(), b.pid())
	}
	if e.GetFilename() != path || e.GetInterpreter() != "" {
		t.Errorf("filename %q and interpreter %q, want %q and none", e.GetFilename(), e.GetInterpreter(), path)
	}
	if id := e.GetFile(); id.GetInode() != 0 && id.GetInode() != b.inode(path) {
		t.Errorf("inode %d, want %d", id.GetInode(), b.inode(path))
	}
	if at := e.GetTime(); s.can.GetKernelTime() && (at < r.began || at > now()) {
		t.Errorf("time %d isn't between the beginning of the watch, %d, and now, %d (CLOCK_BOOTTIME, ns)", at, r.began, now())
	}
	b.end()
	if snap := r.stop(); snap.GetLost() > 0 {
		t.Errorf("one execution, and %d losses", snap.GetLost())
	}
}

func (s *suite) static(t *testing.T) {
	path := tiny(t, "static")
	b := newBox(t, nil, path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	r.exec(path)
	b.end()
	r.stop()
}

// script: the file that runs is the interpreter's, the one that was asked for
// the script's.
func (s *suite) script(t *testing.T) {
	interp := dynamic(t)
	script := write(t, "script", []byte("#!"+interp+" -\n"))
	b := newBox(t, nil, script)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	if e := r.exec(interp); e.GetFilename() != script {
		t.Errorf("filename %q, want the script %q", e.GetFilename(), script)
	}
	b.end()
	r.stop()
}

func (s *suite) memoryFile(t *testing.T) {
	fd, err := unix.MemfdCreate("only in memory", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	defer f.Close()
	if _, err := f.Write(image()); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, []*os.File{f}, "/proc/self/fd/4")
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	r.exec("memfd:only in memory")
	b.end()
	r.stop()
}

// unlinked: the file is opened in the box, where it has a place in the root.
func (s *suite) unlinked(t *testing.T) {
	path := tiny(t, "gone")
	b := newBox(t, nil, "/bin/sh", "-c", `exec 4<"$1"; rm "$1"; exec /proc/self/fd/4`, "sh", path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	r.exec(path + " (deleted)")
	b.end()
	r.stop()
}

// descendants of the scope belong to it, whoever their parents are by now.
func (s *suite) descendants(t *testing.T) {
	path := tiny(t, "grandchild")
	b := newBox(t, nil, "/bin/sh", "-c", `exec 5<&0; ("$1" <&5 &); read x`, "sh", path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	if e := r.exec(path); e.GetPid() == b.pid() {
		t.Errorf("process %d is the first one's, want that of a descendant", e.GetPid())
	}
	b.end()
	r.stop()
}

// outside: nothing is told of processes outside of the scope.
func (s *suite) outside(t *testing.T) {
	in, out := tiny(t, "inside"), tiny(t, "outside")
	b, other := newBox(t, nil, in), newBox(t, nil, out)
	r := s.watch(t, s.start(t), b.scope())
	other.letGo()
	other.end()
	b.letGo()
	r.exec(in)
	b.end()
	r.stop()
	if e := r.find(out); e != nil {
		t.Errorf("it tells of a process outside of the scope: %v", e)
	}
}

// twoScopes: watches of one monitor don't mix.
func (s *suite) twoScopes(t *testing.T) {
	c := s.start(t)
	var boxes []*box
	var records []*record
	paths := []string{tiny(t, "first"), tiny(t, "second")}
	for _, p := range paths {
		b := newBox(t, nil, p)
		boxes, records = append(boxes, b), append(records, s.watch(t, c, b.scope()))
	}
	for i, b := range boxes {
		b.letGo()
		records[i].exec(paths[i])
	}
	for i, b := range boxes {
		b.end()
		records[i].stop()
		if e := records[i].find(paths[1-i]); e != nil {
			t.Errorf("the watch of one scope tells of the other's process: %v", e)
		}
	}
}

// mapping: what the kernel maps with a program, and what its loader does.
func (s *suite) mapping(t *testing.T) {
	path := dynamic(t)
	interp := loader(t, path)
	b := newBox(t, nil, path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	r.await("the mapping of "+interp, func() bool { return r.mapped(interp) })
	r.await("the mapping of a library", func() bool {
		return slices.ContainsFunc(r.mappings, func(m *confinev1.Mapping) bool {
			return m.GetPid() == b.pid() && m.GetPath() != interp && strings.Contains(m.GetPath(), ".so")
		})
	})
	b.end()
	r.stop()
}

// mapped reports whether a mapping of path was told. mu is held.
func (r *record) mapped(path string) bool {
	return slices.ContainsFunc(r.mappings, func(m *confinev1.Mapping) bool { return m.GetPath() == path })
}

// exit: with every event asked for, each process's end is told.
func (s *suite) exit(t *testing.T) {
	b := newBox(t, nil, tiny(t, "ends"))
	scope := b.scope()
	scope.EveryEvent = true
	r := s.watch(t, s.start(t), scope)
	b.letGo()
	b.end()
	r.await("the end of the process", func() bool {
		return slices.ContainsFunc(r.exits, func(e *confinev1.Exit) bool { return e.GetPid() == b.pid() && e.GetStatus() == 0 })
	})
	r.stop()
}

func (s *suite) recorded(t *testing.T) {
	path := tiny(t, "calls")
	b := newBox(t, nil, path)
	r := s.watch(t, s.start(t), b.scope())
	b.letGo()
	b.end()
	for _, calls := range r.stop().GetRecorded() {
		if calls.GetProcess() == path {
			if !slices.Contains(calls.GetNrs(), exitGroup()) {
				t.Errorf("calls %v of %s, want call %d among them", calls.GetNrs(), path, exitGroup())
			}
			return
		}
	}
	t.Errorf("no calls of %s are recorded", path)
}

// storm: of many short-lived processes each is delivered, counted as repeated
// or counted as lost, also when the monitor gets no processor meanwhile.
func (s *suite) storm(each, heldUp bool) func(*testing.T) {
	return func(t *testing.T) {
		const count = 300
		path := tiny(t, "short")
		b := newBox(t, nil, "/bin/sh", "-c", loop, "sh", "300", path)
		scope := b.scope()
		scope.EveryEvent = each
		c := s.start(t)
		r := s.watch(t, c, scope)
		if heldUp {
			signal(t, -c.PID(), unix.SIGSTOP)
		}
		b.letGo()
		b.end()
		if heldUp {
			signal(t, -c.PID(), unix.SIGCONT)
		}
		snap := r.stop()
		var seen uint64
		for _, e := range r.execs {
			if e.GetPath() == path {
				seen++
			}
		}
		repeated := snap.GetRepeated().GetExecs()
		if each && repeated > 0 {
			t.Errorf("%d executions were left out although each was asked for", repeated)
		}
		if sum := seen + repeated + snap.GetLost(); sum < count {
			t.Errorf("%d executions: %d delivered, %d repeated, %d lost", count, seen, repeated, snap.GetLost())
		}
		if seen == 0 {
			t.Error("none was delivered")
		}
	}
}

func signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}
