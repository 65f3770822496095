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

const lostTool = "execsnoop's buffer was full"

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

	mu    sync.Mutex
	ready bool
}

// begin says that from now on everything is told.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sink.Ready()
	w.ready = true
}

// begun does something once the watch has begun: what happened before isn't
// told.
func (w *watch) begun(do func()) {
	w.mu.Lock()
	ready := w.ready
	w.mu.Unlock()
	if ready {
		do()
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
			Exec: true, ExecMapping: true, MissesShortMappings: true, MissesShortLived: t.kind == bpftrace,
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
	w.stream, err = open(ctx, t, cgroup, sinks{
		handle:    func(x proc.Execution) { w.begun(func() { w.completer.Exec(x) }) },
		malformed: func() { w.begun(w.completer.Malformed) },
		lost:      func(n uint64) { w.begun(func() { sink.Lost(n, lostTool) }) },
	})
	if err != nil {
		return err
	}
	defer w.stream.close()
	defer b.watches.Put(id, w)()
	defer w.completer.Start(ctx)()
	w.begin()
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
	err = w.stream.flush(ctx)
	switch {
	case errors.Is(err, errRestless):
		w.sink.Lost(1, "execsnoop did not come to rest, so that its last events may be missing")
	case err != nil:
		return nil, fmt.Errorf("%s: %w", w.stream.tool, err)
	}
	w.completer.Settle()
	return &confinev1.SnapshotResponse{UnseenMappings: w.completer.Unseen(), Repeated: w.completer.Repeated()}, nil
}
