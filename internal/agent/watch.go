package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/cgroup"
	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/netns"
	"github.com/confinehq/confine/internal/agent/observe"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Defaults of a run.
const (
	defaultLimit = 60 * time.Second
	defaultQuiet = 2 * time.Second
	// drainTime bounds reading the last events after a container's end. It is
	// longer than a monitor may take for an answer, so that one that hangs is
	// found to, and ended.
	drainTime = 30 * time.Second
)

// attempt is one container of a run.
type attempt struct {
	// stage is what people see, "run" or "prove".
	stage string
	// suffix tells the containers of a run apart.
	suffix  string
	seccomp *specs.LinuxSeccomp
	// monitor is the name of the one that watches.
	monitor string
}

// observed is what one watched container did.
type observed struct {
	outcome settle.Outcome
	// exitCode is set when the first process ended by itself.
	exitCode *int32
	// killed is true when the container did not end after its stop signal.
	killed     bool
	output     []string
	workload   []string // last lines of the workload's output
	files      []*confinev1.FileSeen
	incomplete []*confinev1.Incomplete
	notes      []*confinev1.Incomplete
	// outside holds programs that only processes from outside executed.
	outside    map[string]bool
	denied     []*confinev1.Denied
	snapshot   *confinev1.SnapshotResponse
	monitor    string
	seconds    float64
	spec       *specs.Spec
	container  string
	runtime    runtimeInfo
	noNewPrivs bool
	// limits is what the monitor can't see.
	limits []string
	// replayed is true when it was made from a trace.
	replayed bool
	// floor is nil when nobody needs it.
	floor *measuring
}

// watched is a watch with its collector.
type watched struct {
	tap
	// looks is true for a monitor that sees mappings by looking now and then.
	looks bool
	// limits is what it can't see.
	limits    []string
	collector *observe.Collector
}

// watchScope begins to watch; everything that happens in the scope afterwards
// is collected.
func (r *run) watchScope(ctx context.Context, monitor string, scope *confinev1.Scope, root *heldRoot) (*watched, error) {
	client, err := r.agent.monitors.get(ctx, monitor)
	if err != nil {
		return nil, err
	}
	w := &watched{looks: client.can.GetMissesShortMappings(), limits: client.limits}
	w.collector = observe.New(ctx, root.Dir, root, observe.Options{
		First: scope.GetPid(), Everybody: r.spec.GetIncludeExec(), KernelTime: client.can.GetKernelTime(),
	})
	// The watch outlives ctx: it is stopped in order.
	watch, err := client.Watch(context.WithoutCancel(ctx), scope)
	if err != nil {
		if client.Err() != nil {
			return nil, &errMonitorDied{err}
		}
		return nil, fault.New(codes.FailedPrecondition, "watch the container: %w", err)
	}
	w.tap = newTap(watch, w.collector.Handle)
	return w, nil
}

// stop takes the last events and returns the final counters.
func (w *watched) stop(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	snap, err := w.tap.stop(ctx)
	if err != nil {
		return nil, &errMonitorDied{err}
	}
	return snap, nil
}

// look has a monitor that sees things by looking do so while they are there.
func (w *watched) look(ctx context.Context) {
	if w.looks {
		_, _ = w.watch.Snapshot(ctx) // a monitor that fails shows when the watch ends
	}
}

// abandon ends a watch whose result nobody wants.
func (w *watched) abandon() {
	w.tap.abandon()
	w.collector.Finish()
}

// watchImage runs a container of the image from before its first instruction
// to its end. The root is the caller's to close. The container's snapshot
// stays until the run is removed.
func (r *run) watchImage(ctx context.Context, image *runner.Image, at attempt) (_ *observed, _ *heldRoot, err error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.progress(at.stage, false, 0, 0, "create container")
	c, err := r.agent.runner.Create(ctx, runner.Spec{
		RunID: r.id, Suffix: at.suffix, Namespace: r.spec.GetNamespace(), Image: image,
		Args: r.spec.GetArgs(), Env: r.spec.GetEnv(), Mounts: r.spec.GetMounts(), User: r.spec.GetUser(),
		NewPrivileges: r.newPrivileges(), Seccomp: at.seccomp,
	})
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	defer func() {
		if err != nil {
			c.Kill()
		}
	}()
	root, err := holdRoot(c.PID())
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	seen := &observed{spec: c.Spec, container: c.ID, monitor: at.monitor, noNewPrivs: !r.newPrivileges()}
	if seen.runtime, err = r.runtimeOf(ctx, c.PID()); err != nil {
		return nil, nil, err
	}
	w, err := r.watchScope(ctx, at.monitor, scopeOf(c.PID(), c.ID), root)
	if err != nil {
		return nil, nil, err
	}
	if at.seccomp == nil {
		seen.floor = r.measureFloor(ctx, r.agent.cfg.Runtime, seen)
		defer func() {
			if err != nil {
				cancel()
				<-seen.floor.done
			}
		}()
	}
	if err := r.drive(ctx, c, image, w, at, seen); err != nil {
		if at.seccomp != nil && ctx.Err() == nil {
			return nil, nil, w.refused(ctx, err)
		}
		w.abandon()
		return nil, nil, err
	}
	if seen.snapshot, err = w.stop(ctx); err != nil {
		w.collector.Finish()
		return nil, nil, err
	}
	r.finish(seen, w, root)
	r.crowded(seen)
	seen.seconds = time.Since(began).Seconds()
	// It returns when all output has been read.
	c.DeleteTask(ctx)
	seen.output = c.Output.Lines()
	if err := neverRan(seen, image); err != nil {
		return nil, nil, refusedBy(seen.denied, err)
	}
	if seen.floor != nil {
		<-seen.floor.done
	}
	return seen, root, nil
}

// neverRan is the error of a container whose runtime could start it, but not
// execute the entrypoint: nothing was executed, and it has ended.
func neverRan(seen *observed, image *runner.Image) error {
	executed := slices.ContainsFunc(seen.files, func(f *confinev1.FileSeen) bool { return f.GetExecuted() > 0 })
	if executed || seen.exitCode == nil || *seen.exitCode == 0 || seen.snapshot.GetLost() > 0 {
		return nil
	}
	why := "nothing was executed"
	if n := len(seen.output); n > 0 {
		why = seen.output[n-1] // the runtime's own words
	}
	return fault.New(codes.FailedPrecondition, "the entrypoint of %s cannot be started: %s; check that it is a program or script for %s, and that the node's kernel runs those", image.Name, why, cmp.Or(image.Platform, platform()))
}

// finish takes what the collector has.
func (r *run) finish(seen *observed, w *watched, root *heldRoot) {
	w.collector.Repeated(seen.snapshot.GetRepeated().GetPrograms())
	found := w.collector.Finish()
	seen.files, seen.incomplete, seen.notes, seen.outside = found.Files, found.Missing, found.Notes, found.Outside
	seen.limits = w.limits
	unseenMappings(seen)
	seen.denied = deniedCalls(seen.snapshot, w.collector)
	lost := max(seen.snapshot.GetLost(), w.collector.Lost())
	seen.snapshot.Lost = lost
	if lost > 0 {
		seen.incomplete = append(seen.incomplete, lostEvents(lost, seen.snapshot.GetLosses()))
	}
	seen.incomplete = append(seen.incomplete, monitorFaults(seen.monitor, w.watch.Faults())...)
	if seen.outcome.WorkloadErr != nil {
		seen.incomplete = append(seen.incomplete, &confinev1.Incomplete{
			Kind: "workload-failed", Detail: seen.outcome.WorkloadErr.Error(),
		})
	}
}

// unseenMappings marks the programs whose mappings the monitor could not see
// whole.
func unseenMappings(seen *observed) {
	for _, f := range seen.files {
		_, f.MappingsUnseen = slices.BinarySearch(seen.snapshot.GetUnseenMappings(), f.GetPath())
	}
}

// crowded says that a container wanted more processes than it may have. Its
// group goes with its task.
func (r *run) crowded(seen *observed) {
	n := cgroup.Refused(seen.spec.Linux.CgroupsPath)
	if n == 0 {
		return
	}
	seen.incomplete = append(seen.incomplete, &confinev1.Incomplete{
		Kind: "too-many-processes", Object: seen.container,
		Detail: fmt.Sprintf("the container reached the limit of %d processes and threads, so that %d more could not be made and what they would have done was not seen", r.agent.runner.PidsLimit(), n),
	})
}

// drive starts the container, lets it settle, and stops it.
func (r *run) drive(ctx context.Context, c *runner.Container, image *runner.Image, w *watched, at attempt, seen *observed) error {
	// A monitor that dies ends the settling.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go w.died(ctx, cancel)
	if err := c.Start(ctx, image); err != nil {
		return cause(ctx, err)
	}
	r.progress(at.stage, at.stage == "run", 0, 0, "%s", c.ID)
	settleStage := at.stage
	if at.stage == "run" {
		settleStage = "settle"
	}
	finished := r.report(ctx, settleStage, w.collector)
	outcome, err := r.settle(ctx, c, image, w, seen)
	finished()
	if err != nil {
		return cause(ctx, err)
	}
	seen.outcome = outcome
	if outcome.Kind == settle.Exited {
		exit := c.Exit()
		if exit.Err != nil {
			return exit.Err
		}
		code := int32(exit.Code)
		seen.exitCode = &code
	} else {
		w.look(ctx)
		if seen.killed, err = c.Stop(ctx, image.StopSignal(), stopGrace); err != nil {
			return cause(ctx, err)
		}
	}
	if err := c.Exit().Err; err != nil {
		return err
	}
	files, programs := w.collector.Counts()
	if at.stage == "run" {
		r.progress(settleStage, true, files, 0, "%s: %d files, %d programs", outcome.Text, files, programs)
	}
	return cause(ctx, nil)
}

// cause returns the reason for which ctx was cancelled instead of err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// report says every second how far the settling is, until the returned
// function is called.
func (r *run) report(ctx context.Context, stage string, c *observe.Collector) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			files, programs := c.Counts()
			r.progress(stage, false, files, 0, "%d files, %d programs", files, programs)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// settle waits until the container has shown what it does.
func (r *run) settle(ctx context.Context, c *runner.Container, image *runner.Image, w *watched, seen *observed) (settle.Outcome, error) {
	ns, err := netns.Of(c.PID())
	if err != nil {
		// It has ended already.
		<-c.Exited()
		return settle.Outcome{Kind: settle.Exited, Text: string(settle.Exited)}, nil
	}
	defer ns.Close()
	target := settle.Container{
		PID: c.PID(), Net: ns, Ports: image.Config.TCPPorts(), Exited: c.Exited(), LastNew: w.collector.LastNew,
	}
	if args := image.Config.Healthcheck.Args(); args != nil {
		target.Health, target.HealthInterval = health(c, image.Config.Healthcheck, args, w.collector.Own)
	}
	if argv := r.spec.GetWorkload(); len(argv) > 0 {
		target.Workload = func(ctx context.Context) error {
			out, err := runWorkload(ctx, ns, argv, c.ID, c.PID())
			seen.workload = out
			return err
		}
	}
	return settle.Wait(ctx, target, r.times())
}

func (r *run) times() settle.Times {
	t := settle.Times{Limit: defaultLimit, Quiet: defaultQuiet}
	if d := r.spec.GetTimeout(); d != nil && d.AsDuration() > 0 {
		t.Limit = d.AsDuration()
	}
	if d := r.spec.GetQuiet(); d != nil && d.AsDuration() > 0 {
		t.Quiet = d.AsDuration()
	}
	return t
}

// health returns the check and how often to make it. own is told each process
// that is made for it.
func health(c *runner.Container, h *runner.Healthcheck, args []string, own func(pid int32)) (func(context.Context) error, time.Duration) {
	interval := h.StartInterval
	if interval <= 0 {
		interval = time.Second
	}
	interval = min(max(interval, 100*time.Millisecond), 5*time.Second)
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Second // Docker's default
	}
	n := 0
	return func(ctx context.Context) error {
		n++
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		code, err := c.Exec(ctx, fmt.Sprintf("health-%d", n), args, own)
		if err == nil && code != 0 {
			err = fmt.Errorf("healthcheck ended with status %d", code)
		}
		return err
	}, interval
}
