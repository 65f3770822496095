package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/proc"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// hostContainer is how sysdig names what is in no container.
	hostContainer = "host"
	// maxContainers bounds what an inspection lists.
	maxContainers = 1000
	// maxTracked bounds the processes and threads that are remembered.
	maxTracked = 1 << 17
)

// Reasons of losses.
const (
	lostDrop      = "sysdig's driver dropped events"
	lostMalformed = "a line of sysdig's output can't be read"
	lostCut       = "the trace ends in the middle"
)

// replayArgs are sysdig's arguments to print a whole trace.
func replayArgs(file string) []string {
	return []string{"-v", "-j", "-p", format, "-r", file}
}

// InspectCapture implements monitor.Replayer.
func (b *backend) InspectCapture(ctx context.Context, file string) (*confinev1.InspectCaptureResponse, error) {
	t, err := find(ctx)
	if err != nil {
		return nil, err
	}
	if err := readable(file); err != nil {
		return nil, err
	}
	found := map[string]*confinev1.CapturedContainer{}
	p, err := t.run(ctx, replayArgs(file), func(line string, _ bool) {
		e, err := parse(line)
		if err != nil {
			return // Watch counts it
		}
		id := e.Container.value()
		if id == "" || e.Type == "container" {
			return
		}
		c := found[id]
		if c == nil {
			if len(found) >= maxContainers {
				return
			}
			c = &confinev1.CapturedContainer{Id: id}
			found[id] = c
		}
		if id != hostContainer {
			// A trace can tell them late.
			c.Name, c.Image = first(c.Name, e.Name.value()), first(c.Image, e.Image.value())
		}
		c.Events++
		if e.executed() {
			c.Execs++
		}
	})
	if err != nil {
		return nil, err
	}
	if p.err != nil && len(found) == 0 {
		return nil, unreadable(file, p)
	}
	out := &confinev1.InspectCaptureResponse{}
	for _, c := range found {
		out.Containers = append(out.Containers, c)
	}
	return out, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// readable says early, and in words, what is wrong with a file's name.
func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open trace: %w", err)
	}
	return f.Close()
}

// unreadable is the error of a trace of which sysdig can read nothing.
func unreadable(file string, p *process) error {
	said := p.said()
	if said == "" {
		said = p.err.Error()
	}
	return fmt.Errorf("sysdig cannot read the trace %s: %s; record it with 'sysdig -w FILE'", path.Base(file), said)
}

// replay is one trace on its way to events.
type replay struct {
	want string // container, "" for all
	root *proc.Root
	sink *monitor.Sink
	done chan struct{} // closed at the end of the trace
	over chan struct{} // closed at the end of the watch

	mu       sync.Mutex
	calls    *calls
	late     map[string]bool // programs that ran when the trace began
	programs map[int32]string
	asked    map[string]string // file that a thread's execve names, by thread
	read     uint64
}

// replayWatch carries out a Watch of a trace.
func (b *backend) replayWatch(ctx context.Context, id string, scope *confinev1.Scope, sink *monitor.Sink) error {
	c := scope.GetCapture()
	t, err := find(ctx)
	if err != nil {
		return err
	}
	if err := readable(c.GetPath()); err != nil {
		return fmt.Errorf("%w: %w", monitor.ErrInvalidScope, err)
	}
	if scope.GetPid() <= 0 {
		return fmt.Errorf("%w: a trace needs a process in whose root its files are looked up", monitor.ErrInvalidScope)
	}
	root, err := proc.OpenRoot(scope.GetPid())
	if err != nil {
		return fmt.Errorf("%w: %w", monitor.ErrInvalidScope, err)
	}
	defer root.Close()
	r := &replay{
		want: c.GetContainer(), root: root, sink: sink, done: make(chan struct{}), over: make(chan struct{}), calls: newCalls(),
		late: map[string]bool{}, programs: map[int32]string{}, asked: map[string]string{},
	}
	defer b.watches.Put(id, r)()
	defer close(r.over)
	sink.Ready()
	p, err := t.run(ctx, replayArgs(c.GetPath()), r.line)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how watches end
		}
		return err
	}
	switch {
	case p.err != nil && r.read == 0:
		return unreadable(c.GetPath(), p)
	case p.err != nil || p.readErr != nil:
		sink.Lost(1, lostCut)
	}
	sink.Lost(p.drops(), lostDrop)
	close(r.done)
	<-ctx.Done()
	return nil
}

// line takes one event.
func (r *replay) line(line string, whole bool) {
	e, err := parse(line)
	if err != nil || !whole {
		r.sink.Lost(1, lostMalformed)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read++
	if e.dropped() {
		r.sink.Lost(1, lostDrop)
		return
	}
	if r.want != "" && e.Container.value() != r.want {
		return
	}
	pid := e.PID.pid()
	if pid <= 0 {
		return
	}
	if len(r.programs) > maxTracked {
		clear(r.programs)
	}
	if len(r.asked) > maxTracked {
		clear(r.asked)
	}
	switch {
	case e.Dir == ">" && (e.Type == "execve" || e.Type == "execveat"):
		r.asked[string(e.TID)] = first(e.Filename.value(), e.Pathname.value())
	case e.executed():
		r.executed(e, pid)
		return // the program before made that call, not this one
	case e.Type == "procexit":
		if e.TID == e.PID { // not of another thread
			delete(r.programs, pid)
		}
		return
	}
	program, ok := r.programs[pid]
	if !ok {
		program = r.running(e, pid)
	}
	if name := e.mapped(); name != "" {
		r.sink.Mapping(&confinev1.Mapping{Time: e.Time.number(), Pid: pid, Path: name})
	}
	if call := e.Call.value(); call != "" && e.Dir == ">" {
		r.calls.add(program, call)
	}
}

// executed reports an execution.
func (r *replay) executed(e event, pid int32) {
	asked := r.asked[string(e.TID)]
	delete(r.asked, string(e.TID))
	x := r.resolve(e, asked)
	x.Pid, x.Ppid, x.Time = pid, e.PPID.pid(), e.Time.number()
	r.programs[pid] = x.Path
	r.sink.Exec(x)
}

// running takes a process of which no execution was seen: a child of a known
// one, or one that ran before the trace began.
func (r *replay) running(e event, pid int32) string {
	if parent, ok := r.programs[e.PPID.pid()]; ok && (e.ExePath.value() == "" || path.Base(e.ExePath.value()) == path.Base(parent)) {
		r.programs[pid] = parent
		return parent
	}
	x := r.resolve(e, "")
	r.programs[pid] = x.Path
	if x.Path != "" && !r.late[x.Path] {
		r.late[x.Path] = true
		x.Pid, x.Ppid, x.Time = pid, e.PPID.pid(), e.Time.number()
		r.sink.Exec(x)
	}
	return x.Path
}

// resolve finds the file that an event's process runs, inside the root. What
// isn't there keeps the name that the trace gives it.
func (r *replay) resolve(e event, asked string) *confinev1.Exec {
	x := &confinev1.Exec{Comm: e.Comm.value()}
	cwd := first(e.Cwd.value(), "/")
	var names []string
	for _, n := range []string{e.ExePath.value(), asked, e.Exe.value()} {
		if n != "" {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		names = []string{x.Comm}
	}
	for _, name := range names {
		f, err := r.root.Search(cwd, name, e.searchPath())
		if err != nil {
			continue
		}
		between, interpreter, last, err := r.root.Chain(f)
		if err != nil {
			last, between, interpreter = f, nil, ""
		}
		x.Path, x.File, x.Filename, x.Interpreter, x.Nested = last.Path, last.ID, f.Path, interpreter, between
		return x
	}
	x.Path = names[0]
	if strings.Contains(x.Path, "/") && !path.IsAbs(x.Path) {
		x.Path = path.Join(cwd, x.Path)
	}
	x.Filename = x.Path
	return x
}

// snapshot waits for the end of the trace.
func (r *replay) snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	select {
	case <-r.done:
	case <-r.over:
		return nil, monitor.ErrUnknownWatch
	case <-ctx.Done():
		return nil, errors.New("the trace is not read to its end yet; give it more time with --timeout")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &confinev1.SnapshotResponse{Recorded: r.calls.recorded()}
	if names := sorted(r.late); len(names) > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("the trace began after the start of %s, so that what they did before isn't in it", strings.Join(names, ", ")))
	}
	if names := sorted(r.calls.unclear); len(names) > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("sysdig writes several calls under one name (%s): which of them were made the trace doesn't tell, and they aren't compared with the analysis", strings.Join(names, ", ")))
	}
	if names := sorted(r.calls.unknown); len(names) > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("sysdig names calls that this machine doesn't have (%s); they aren't compared with the analysis", strings.Join(names, ", ")))
	}
	return out, nil
}
