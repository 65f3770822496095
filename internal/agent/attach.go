package agent

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/netns"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// observeAttached watches a container that somebody else started. It is left
// running whatever happens.
func (r *run) observeAttached(ctx context.Context) error {
	id := r.spec.GetContainerId()
	r.progress("image", false, 0, 0, "find container %s", id)
	c, err := r.agent.runner.Attach(ctx, r.spec.GetNamespace(), id)
	if err != nil {
		return fault.Stage("image", err)
	}
	name := "image unknown"
	if c.Image != nil {
		name = c.Image.Name
	}
	r.progress("image", true, 0, 0, "%s: %s", c.ID, name)
	seen, root, err := r.watchAttached(ctx, c)
	var died *errMonitorDied
	if errors.As(err, &died) {
		r.agent.log.Warn("monitor died, watching once more", "run", r.id, "error", died)
		r.progress("run", false, 0, 0, "the monitor died; once more")
		seen, root, err = r.watchAttached(ctx, c)
	}
	if errors.As(err, &died) {
		return fault.Stage("run", monitorDiedTwice(died))
	}
	if err != nil {
		return fault.Stage("run", err)
	}
	r.mu.Lock()
	r.root, r.first = root, seen
	r.mu.Unlock()
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Observation{Observation: r.observation(c.Image, seen)}})
	return nil
}

// watchAttached watches from now on, and looks at what runs already. The root
// is the caller's to close.
func (r *run) watchAttached(ctx context.Context, c *runner.Existing) (_ *observed, _ *heldRoot, err error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.progress("run", false, 0, 0, "attach to %s", c.ID)
	root, err := holdRoot(c.PID)
	if err != nil {
		return nil, nil, endedMeanwhile(c)
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	seen := &observed{spec: c.Spec, container: c.ID, monitor: r.monitorName(), noNewPrivs: c.Spec.Process.NoNewPrivileges}
	w, err := r.watchScope(ctx, seen.monitor, attachScope(c.PID, c.ID), root)
	if err != nil {
		return nil, nil, err
	}
	if processes := seed(w.collector, c.PID); processes == 0 {
		w.abandon()
		return nil, nil, endedMeanwhile(c)
	}
	path := c.Runtime
	if path == "" {
		path = r.agent.cfg.Runtime
	}
	seen.floor = r.floorOfBinary(ctx, path, seen)
	defer func() {
		if err != nil && seen.floor != nil {
			cancel()
			<-seen.floor.done
		}
	}()
	if err := r.settleAttached(ctx, c, w, seen); err != nil {
		w.abandon()
		return nil, nil, err
	}
	if seen.snapshot, err = w.stop(ctx); err != nil {
		w.collector.Finish()
		return nil, nil, err
	}
	r.finish(seen, w, root)
	seen.incomplete = append(seen.incomplete, &confinev1.Incomplete{
		Kind: "attached-late", Object: c.ID,
		Detail: "it ran already when the watch began, so that programs and libraries which it was done with by then are known only as far as the analysis finds them; profile its image to watch the start",
	})
	seen.seconds = time.Since(began).Seconds()
	<-seen.floor.done
	return seen, root, nil
}

func endedMeanwhile(c *runner.Existing) error {
	return fault.New(codes.FailedPrecondition, "container %s ended before it could be watched; start it again, or profile its image instead", c.ID)
}

// settleAttached waits for the workload, then for quiet.
func (r *run) settleAttached(ctx context.Context, c *runner.Existing, w *watched, seen *observed) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go w.died(ctx, cancel)
	r.progress("run", true, 0, 0, "%s", c.ID)
	target := settle.Container{PID: c.PID, Exited: c.Exited(), LastNew: w.collector.LastNew}
	if argv := r.spec.GetWorkload(); len(argv) > 0 {
		ns, err := netns.Of(c.PID)
		if err != nil {
			return endedMeanwhile(c)
		}
		defer ns.Close()
		target.Workload = func(ctx context.Context) error {
			out, err := runWorkload(ctx, ns, argv, c.ID, c.PID)
			seen.workload = out
			return err
		}
	}
	finished := r.report(ctx, "settle", w.collector)
	outcome, err := settle.Wait(ctx, target, r.times())
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
	}
	files, programs := w.collector.Counts()
	r.progress("settle", true, files, 0, "%s: %d files, %d programs", outcome.Text, files, programs)
	return cause(ctx, nil)
}
