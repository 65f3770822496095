package main

import (
	"context"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// backend is the monitor. Each watch has a sysdig of its own.
type backend struct {
	version string

	watches monitor.Watches[snapshotter]
}

// snapshotter is a watch, live or of a trace.
type snapshotter interface {
	snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error)
}

func newBackend(version string) *backend {
	return &backend{version: version}
}

// Describe implements monitor.Monitor. A sysdig without a driver can still
// replay traces.
func (b *backend) Describe(ctx context.Context) (*confinev1.DescribeResponse, error) {
	t, err := find(ctx)
	if err != nil {
		return nil, err
	}
	out := &confinev1.DescribeResponse{
		Name: "sysdig", Version: b.version,
		Capabilities: &confinev1.Capabilities{Replay: true},
		Limits: []string{
			"of a trace, mappings are those made by mmap with an open file, and calls those that sysdig gives a name of their own",
		},
		Mechanisms: []string{"sysdig " + t.version + " (" + t.path + ")", "replay of traces"},
	}
	if err := try(ctx, t); err == nil {
		out.Capabilities.Exec, out.Capabilities.ExecMapping, out.Capabilities.MissesShortMappings = true, true, true
		out.Limits = append(out.Limits, "live, mappings are looked up in /proc now and then: those of short-lived processes can be missed, and the run says of which programs")
		out.Mechanisms = append(out.Mechanisms, "live, mappings from /proc")
	} else {
		out.Limits = append(out.Limits, "it can't watch what runs: "+err.Error())
	}
	return out, nil
}

// try runs sysdig live until it reports something.
func try(ctx context.Context, t tool) error {
	l, err := open(ctx, t, nil, func(uint64, string) {})
	if err != nil {
		return err
	}
	l.process.stop()
	return nil
}

// Watch implements monitor.Monitor.
func (b *backend) Watch(ctx context.Context, id string, scope *confinev1.Scope, sink *monitor.Sink) error {
	if scope.GetCapture() != nil {
		return b.replayWatch(ctx, id, scope, sink)
	}
	return b.liveWatch(ctx, id, scope, sink)
}

// Snapshot implements monitor.Monitor.
func (b *backend) Snapshot(ctx context.Context, id string) (*confinev1.SnapshotResponse, error) {
	w, err := b.watches.Get(id)
	if err != nil {
		return nil, err
	}
	return w.snapshot(ctx)
}
