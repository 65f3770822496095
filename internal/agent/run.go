package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/runner"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// parallelCommands is how many commands of one run are carried out at once.
const parallelCommands = 4

// run is one run from StartRun to RunEnded.
type run struct {
	id     string
	spec   *confinev1.RunSpec
	agent  *Agent
	server confinev1.AgentServiceClient
	ctx    context.Context
	cancel context.CancelCauseFunc
	began  time.Time
	// commands are what the server asked for; the first is the observation.
	commands sync.WaitGroup
	slots    chan struct{}

	mu    sync.Mutex
	ended bool
	// failed is set once a RunError was said.
	failed bool
	// proving is set by the first ProveCommand: servers repeat it.
	proving bool
	// image, root and first are set when the observation is made.
	image *runner.Image
	root  *heldRoot
	first *observed
}

// start begins a run with its first job; it answers with RunError when it
// cannot.
func (a *Agent) start(id string, spec *confinev1.RunSpec, client confinev1.AgentServiceClient, g *errgroup.Group, job func(*run, context.Context)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.runs[id]; ok || a.stopping {
		return // said twice after a break, or too late
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &run{
		id: id, spec: spec, agent: a, server: client, ctx: ctx, cancel: cancel,
		began: time.Now(), slots: make(chan struct{}, parallelCommands),
	}
	full := len(a.runs) >= maxRuns
	a.runs[id] = r
	if full {
		r.fail(fault.New(codes.ResourceExhausted, "node %s holds %d runs already; try again when some have ended", a.cfg.Node, maxRuns))
	} else {
		r.do(func(ctx context.Context) { job(r, ctx) })
	}
	g.Go(func() error { r.life(); return nil })
}

// life waits for the end of a run, then removes it.
func (r *run) life() {
	<-r.ctx.Done()
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.commands.Wait()
	left := r.remove()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.agent.mu.Lock()
	delete(r.agent.runs, r.id)
	idle := len(r.agent.runs) == 0
	r.agent.mu.Unlock()
	if idle {
		defer debug.FreeOSMemory() // nodes are idle most of the time
	}
	r.agent.say(ctx, r.id, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_RunEnded{RunEnded: &confinev1.RunEnded{Leftovers: left}}})
	r.agent.log.Info("run ended", "run", r.id, "reason", context.Cause(r.ctx), "leftovers", len(left))
}

// remove deletes everything of the run from the node and returns what could
// not be removed.
func (r *run) remove() []string {
	r.mu.Lock()
	if r.root != nil {
		r.root.Close()
		r.root = nil
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	err := r.agent.runner.Remove(ctx, r.spec.GetNamespace(), r.id)
	if err == nil {
		return nil
	}
	r.agent.log.Warn("cannot remove a run yet", "run", r.id, "error", err)
	r.agent.mu.Lock()
	r.agent.stale[r.id] = r.spec.GetNamespace()
	r.agent.mu.Unlock()
	return []string{fmt.Sprintf("run %s in containerd: %v; the agent removes it as soon as containerd lets it, also after a restart", r.id, err)}
}

// end lets a run end; it returns at once.
func (r *run) end(reason string) {
	if reason == "" {
		reason = "ended by the server"
	}
	r.cancel(errors.New(reason))
}

// do carries out one command of the server beside others.
func (r *run) do(f func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.commands.Go(func() {
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-r.ctx.Done():
			return
		}
		f(r.ctx)
	})
}

// fail says why the run cannot go on, and ends it.
func (r *run) fail(err error) {
	r.mu.Lock()
	again := r.failed
	r.failed = true
	r.mu.Unlock()
	if again || r.ctx.Err() != nil {
		return
	}
	r.agent.log.Warn("run failed", "run", r.id, "stage", fault.StageOf(err), "error", err)
	r.say(runError(status.New(fault.CodeOf(err), err.Error()), fault.StageOf(err)))
	r.cancel(err)
}

func (r *run) say(m *confinev1.ConnectRequest) { r.agent.say(r.ctx, r.id, m) }

// progress tells people what happens. It is left out when the server is slow.
func (r *run) progress(stage string, done bool, count, total int, format string, args ...any) {
	if r.agent.out.crowded() {
		return
	}
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Progress{Progress: &confinev1.Progress{
		Stage: stage, Done: done, Text: fmt.Sprintf(format, args...),
		Count: uint32(count), Total: uint32(total), Seconds: time.Since(r.began).Seconds(),
	}}})
}

// observe makes the first run and says what was seen.
func (r *run) observe(ctx context.Context) {
	// First of all: nobody wants to wait for an image that can't be watched.
	_, err := r.agent.monitors.get(ctx, r.monitorName())
	if err != nil {
		r.fail(fault.Stage("image", err))
		return
	}
	switch {
	case r.spec.GetCapture() != nil:
		err = r.observeCapture(ctx)
	case r.spec.GetContainerId() != "":
		err = r.observeAttached(ctx)
	default:
		err = r.observeImage(ctx)
	}
	if err != nil {
		r.fail(err)
	}
}

func (r *run) observeImage(ctx context.Context) error {
	r.progress("image", false, 0, 0, "resolve %s", r.spec.GetImage())
	image, err := r.agent.runner.Image(ctx, r.id, r.spec.GetNamespace(), r.spec.GetImage(), r.spec.GetSnapshotter())
	if err != nil {
		return fault.Stage("image", err)
	}
	r.progress("image", true, 0, 0, "%s %s", image.Name, image.Digest)
	seen, root, err := r.watchImage(ctx, image, attempt{stage: "run", monitor: r.monitorName()})
	var died *errMonitorDied
	if errors.As(err, &died) {
		r.agent.log.Warn("monitor died, running once more", "run", r.id, "error", died)
		r.progress("run", false, 0, 0, "the monitor died; once more")
		if err := r.agent.runner.Remove(ctx, r.spec.GetNamespace(), r.id); err != nil {
			return fault.Stage("run", err)
		}
		// The lease of the image went with the run.
		if image, err = r.agent.runner.Image(ctx, r.id, r.spec.GetNamespace(), r.spec.GetImage(), r.spec.GetSnapshotter()); err != nil {
			return fault.Stage("image", err)
		}
		seen, root, err = r.watchImage(ctx, image, attempt{stage: "run", monitor: r.monitorName()})
	}
	if errors.As(err, &died) {
		return fault.Stage("run", monitorDiedTwice(died))
	}
	if err != nil {
		return fault.Stage("run", err)
	}
	r.tell(image, root, seen)
	return nil
}

// tell keeps the observation of an image and sends it to the server.
func (r *run) tell(image *runner.Image, root *heldRoot, seen *observed) {
	r.mu.Lock()
	r.image, r.root, r.first = image, root, seen
	r.mu.Unlock()
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Observation{Observation: r.observation(image, seen)}})
}

func monitorDiedTwice(died *errMonitorDied) error {
	return fault.New(codes.Aborted, "monitor-died: %w; it was started again and died again: see the agent's log, update it, or use another (--monitor)", died)
}

func (r *run) monitorName() string {
	if name := r.spec.GetMonitor(); name != "" {
		return name
	}
	if r.spec.GetCapture() != nil {
		return replayer
	}
	return defaultMonitor
}
