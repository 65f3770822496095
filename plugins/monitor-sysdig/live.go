package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/proc"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// startTime bounds how long sysdig may take to report something.
	startTime = 20 * time.Second
	// canaryPause is the time between two executions that wait to be seen.
	canaryPause = 200 * time.Millisecond
)

// liveArgs are sysdig's arguments to print executions as they happen.
func liveArgs() []string {
	return []string{"--unbuffered", "-j", "-p", format, "evt.type in (execve, execveat, drop)"}
}

// live is a sysdig that watches the kernel.
type live struct {
	process   *process
	completer *proc.Completer // nil when nothing is watched yet
	lost      func(count uint64, reason string)

	mu     sync.Mutex
	asked  map[string]string // file that a thread's execve names, by thread
	canary int32
	seen   chan struct{} // closed when an execution of our own was seen
	isSeen bool
	ready  bool // the watch has begun: what happened before isn't told
}

// begin says that from now on everything is told.
func (l *live) begin(sink *monitor.Sink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sink.Ready()
	l.ready = true
}

func (l *live) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

// open starts sysdig and returns when it reports executions.
func open(ctx context.Context, t tool, completer *proc.Completer, lost func(uint64, string)) (*live, error) {
	l := &live{completer: completer, lost: lost, asked: map[string]string{}, seen: make(chan struct{})}
	p, err := t.start(liveArgs(), l.line)
	if err != nil {
		return nil, err
	}
	l.process = p
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := l.barrier(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return l, nil
}

// barrier returns when an execution that happens after the call was reported.
func (l *live) barrier(ctx context.Context) error {
	l.mu.Lock()
	l.seen, l.isSeen = make(chan struct{}), false
	seen := l.seen
	l.mu.Unlock()
	for {
		if err := l.execute(ctx); err != nil {
			return err
		}
		select {
		case <-seen:
			return nil
		case <-l.process.ended:
			return noDriver(l.process)
		case <-ctx.Done():
			return errors.New("sysdig reports nothing that is executed; is its driver loaded?")
		case <-time.After(canaryPause):
		}
	}
}

// execute runs this program's own file for nothing.
func (l *live) execute(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := os.StartProcess(self, []string{self, roleCanary}, &os.ProcAttr{Env: []string{}})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.canary = int32(p.Pid)
	l.mu.Unlock()
	_, err = p.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// noDriver is the error of a sysdig that ended when it should watch.
func noDriver(p *process) error {
	said := p.said()
	if strings.Contains(said, "driver") || strings.Contains(said, "scap0") || strings.Contains(said, "probe") {
		var u unix.Utsname
		_ = unix.Uname(&u)
		return monitor.Unsupported(fmt.Errorf("sysdig has no driver for this kernel (%s): install its module (apt-get install sysdig-dkms) or give it an eBPF probe (option %s), use another monitor (--monitor ebpf), or replay a trace that was recorded elsewhere (--capture FILE)",
			unix.ByteSliceToString(u.Release[:]), optionProbe))
	}
	if said == "" && p.err != nil {
		said = p.err.Error()
	}
	return fmt.Errorf("sysdig ended: %s", said)
}

// line takes one event.
func (l *live) line(line string, whole bool) {
	e, err := parse(line)
	if err != nil || !whole {
		if l.begun() {
			l.lost(1, lostMalformed)
		}
		return
	}
	switch {
	case e.dropped():
		if l.begun() {
			l.lost(1, lostDrop)
		}
	case e.Dir == ">":
		l.mu.Lock()
		if len(l.asked) > maxTracked {
			clear(l.asked)
		}
		l.asked[string(e.TID)] = first(e.Filename.value(), e.Pathname.value())
		l.mu.Unlock()
	case e.executed():
		l.executed(e)
	}
}

func (l *live) executed(e event) {
	l.mu.Lock()
	asked := l.asked[string(e.TID)]
	delete(l.asked, string(e.TID))
	if e.PID.pid() == l.canary && !l.isSeen {
		l.isSeen = true
		close(l.seen)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	if l.completer == nil || !l.begun() {
		return
	}
	l.completer.Exec(proc.Execution{
		PID: e.PID.pid(), PPID: e.PPID.pid(), Name: first(asked, e.ExePath.value()), Naming: proc.Asked, Comm: e.Comm.value(),
	})
}

// liveWatch carries out a Watch of what runs.
func (b *backend) liveWatch(ctx context.Context, id string, scope *confinev1.Scope, sink *monitor.Sink) error {
	in, err := proc.NewScope(scope)
	if err != nil {
		return fmt.Errorf("%w: %w", monitor.ErrInvalidScope, err)
	}
	t, err := find(ctx)
	if err != nil {
		return err
	}
	c := proc.NewCompleter(in, sink)
	defer c.Close()
	l, err := open(ctx, t, c, sink.Lost)
	if err != nil {
		return err
	}
	defer l.process.stop()
	defer b.watches.Put(id, l)()
	defer c.Start(ctx)()
	l.begin(sink)
	select {
	case <-ctx.Done():
		return nil
	case <-l.process.ended:
		return noDriver(l.process)
	}
}

// snapshot waits until what happened before has been reported.
func (l *live) snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := l.barrier(ctx); err != nil {
		return nil, err
	}
	l.completer.Settle()
	return &confinev1.SnapshotResponse{UnseenMappings: l.completer.Unseen(), Repeated: l.completer.Repeated()}, nil
}
