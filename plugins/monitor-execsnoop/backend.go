package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/proc"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// flushTime bounds how long the end of a watch waits for the tool's last
// events.
const flushTime = 5 * time.Second

// Reasons of losses.
const (
	lostTool   = "execsnoop's buffer was full"
	lostUntold = "an execution of a kind that execsnoop does not report"
)

// uncounted is the note of a watch whose executions nobody counts.
const uncounted = "executions by execveat, by another thread than the first and by 32-bit programs are missed without being counted: the container has no cgroup that execsnoop could be limited to"

// backend is the monitor. Each watch has a tool of its own.
type backend struct {
	version string

	mu   sync.Mutex
	tool *tool // the one that works, nil until it was looked for

	watches monitor.Watches[*watch]
}

// watch is one tool at work.
type watch struct {
	stream    *stream
	completer *proc.Completer
	sink      *monitor.Sink
	counter   *counter // nil where executions aren't counted

	mu     sync.Mutex
	ready  bool
	before uint64 // executions before the watch began
	told   uint64 // executions that the tool has told of since, or lost
	untold uint64 // executions that were counted as lost because it did neither
}

// begin says that from now on everything is told.
func (w *watch) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counter != nil {
		var err error
		if w.before, err = w.counter.read(); err != nil {
			return err
		}
	}
	w.sink.Ready()
	w.ready = true
	return nil
}

// begun does something about n executions once the watch has begun: what
// happened before isn't told.
func (w *watch) begun(n uint64, do func()) {
	w.mu.Lock()
	ready := w.ready
	if ready {
		w.told += n
	}
	w.mu.Unlock()
	if ready {
		do()
	}
}

// count counts as lost what was executed and neither told by the tool nor found
// in /proc. executed is what the kernel counted before the tool's output was
// read to its end.
func (w *watch) count(executed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.before + w.told + w.completer.Found() + w.untold
	if executed > known {
		w.sink.Lost(executed-known, lostUntold)
		w.untold += executed - known
	}
}

func newBackend(version string) *backend {
	return &backend{version: version}
}

// Describe implements monitor.Monitor: it runs the tools until one works.
func (b *backend) Describe(ctx context.Context) (*confinev1.DescribeResponse, error) {
	t, err := b.working(ctx)
	if err != nil {
		return nil, err
	}
	mechanisms := []string{t.String()}
	if v := t.version(ctx); v != "" {
		mechanisms = append(mechanisms, v)
	}
	if t.filters {
		mechanisms = append(mechanisms, "limited to the container's cgroup in the kernel")
	}
	return &confinev1.DescribeResponse{
		Name: "execsnoop", Version: b.version,
		Capabilities: &confinev1.Capabilities{
			Exec: true, ExecMapping: true, MissesShortMappings: true, MissesShortLived: !t.counts,
		},
		Mechanisms: append(mechanisms, "mappings from /proc/PID/maps"),
		Limits:     t.limits(),
	}, nil
}

// working returns a tool that was seen to work on this machine.
func (b *backend) working(ctx context.Context) (tool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tool != nil {
		return *b.tool, nil
	}
	found, err := find(ctx)
	if err != nil {
		return tool{}, err
	}
	var failed []string
	for _, t := range found {
		if ctx.Err() != nil {
			failed = append(failed, t.String()+" was not tried: there was no time left")
			continue
		}
		err := try(ctx, t)
		if err == nil {
			t.counts = t.filters && countable()
			b.tool = &t
			return t, nil
		}
		failed = append(failed, err.Error())
	}
	return tool{}, fmt.Errorf("no execsnoop works here: %s; install another one (apt-get install libbpf-tools, or bpftrace), or watch with --monitor ebpf", strings.Join(failed, "; "))
}

// try runs a tool until it reports something.
func try(ctx context.Context, t tool) error {
	s, err := open(ctx, t, "", sinks{func(proc.Execution) {}, func() {}, func(uint64) {}})
	if err != nil {
		return err
	}
	s.close()
	return nil
}

// Watch implements monitor.Monitor.
func (b *backend) Watch(ctx context.Context, id string, scope *confinev1.Scope, sink *monitor.Sink) error {
	in, err := proc.NewScope(scope)
	if err != nil {
		return fmt.Errorf("%w: %w", monitor.ErrInvalidScope, err)
	}
	t, err := b.working(ctx)
	if err != nil {
		return err
	}
	w := &watch{completer: proc.NewCompleter(in, sink), sink: sink}
	defer w.completer.Close()
	cgroup := ""
	if t.filters {
		cgroup = in.CgroupDir()
	}
	if t.counts && cgroup != "" {
		if w.counter, err = newCounter(cgroup); err != nil {
			return err
		}
		defer w.counter.close()
	}
	w.stream, err = open(ctx, t, cgroup, sinks{
		handle:    func(x proc.Execution) { w.begun(1, func() { w.completer.Exec(x) }) },
		malformed: func() { w.begun(1, w.completer.Malformed) },
		lost:      func(n uint64) { w.begun(n, func() { sink.Lost(n, lostTool) }) },
	})
	if err != nil {
		return err
	}
	defer w.stream.close()
	defer b.watches.Put(id, w)()
	defer w.completer.Start(ctx)()
	if err := w.begin(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-w.stream.ended:
		return fmt.Errorf("%s: %w", t, w.stream.failure())
	}
}

// Snapshot implements monitor.Monitor.
func (b *backend) Snapshot(ctx context.Context, id string) (*confinev1.SnapshotResponse, error) {
	w, err := b.watches.Get(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	var executed uint64
	if w.counter != nil {
		if executed, err = w.counter.read(); err != nil {
			return nil, err
		}
	}
	snap := &confinev1.SnapshotResponse{}
	err = w.stream.flush(ctx)
	switch {
	case errors.Is(err, errRestless):
		w.sink.Lost(1, "execsnoop did not come to rest, so that its last events may be missing")
		executed = 0 // nobody knows what is still to come
	case err != nil:
		return nil, fmt.Errorf("%s: %w", w.stream.tool, err)
	}
	w.completer.Settle()
	w.count(executed)
	if w.counter == nil && w.stream.tool.counts {
		snap.Notes = append(snap.Notes, uncounted)
	}
	snap.UnseenMappings, snap.Repeated = w.completer.Unseen(), w.completer.Repeated()
	return snap, nil
}
