package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/internal/agent/cgroup"
)

// Remove deletes everything of a run: tasks, containers, snapshots, the lease
// and generated files. What is already gone is no error, so it can be called
// again after one.
func (r *Runner) Remove(ctx context.Context, namespace, runID string) error {
	if err := checkID(runID); err != nil {
		return err
	}
	ctx = r.namespace(ctx, namespace)
	list, err := r.client.Containers(ctx, fmt.Sprintf("labels.%q==%s,labels.%q==%s", labelOwner, r.owner, labelRun, runID))
	if err != nil {
		return r.daemon(fmt.Errorf("list containers of run %s: %w", runID, err))
	}
	var errs []error
	for _, c := range list {
		errs = append(errs, r.removeContainer(ctx, c))
	}
	if err := errors.Join(errs...); err != nil {
		return r.daemon(err)
	}
	if err := r.removeSnapshots(ctx, runID); err != nil {
		return r.daemon(err)
	}
	err = r.client.LeasesService().Delete(ctx, leases.Lease{ID: prefix + runID}, leases.SynchronousDelete)
	if err != nil && !errdefs.IsNotFound(err) {
		return r.daemon(fmt.Errorf("delete lease %s: %w", prefix+runID, err))
	}
	if err := os.RemoveAll(r.runDir(runID)); err != nil {
		return fmt.Errorf("remove files of run %s: %w", runID, err)
	}
	return nil
}

// Remove deletes one container of a run, with its task and its snapshot, while
// the run goes on.
func (c *Container) Remove(ctx context.Context) error {
	return c.runner.daemon(c.runner.removeContainer(c.runner.namespace(ctx, c.namespace), c.container))
}

func (r *Runner) removeContainer(ctx context.Context, c containerd.Container) error {
	task, err := c.Task(ctx, nil)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("load task of %s: %w", c.ID(), err)
	default:
		if err := endTask(ctx, task); err != nil {
			return err
		}
	}
	spec, specErr := c.Spec(ctx)
	if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: %w", c.ID(), err)
	}
	if specErr == nil && spec.Linux != nil {
		// The runtime does it, unless it was killed.
		return cgroup.Remove(spec.Linux.CgroupsPath)
	}
	return nil
}

// endTask kills a task and deletes it with its shim.
func endTask(ctx context.Context, task containerd.Task) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	wait, err := task.Wait(ctx)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("wait for task %s: %w", task.ID(), err)
	}
	err = task.Kill(ctx, unix.SIGKILL, containerd.WithKillAll)
	if err != nil && !errdefs.IsNotFound(err) {
		// The runtime cannot kill what never started through a shim that lost
		// its state; the process itself can always be killed.
		if pid := int(task.Pid()); pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("task %s does not end: %w", task.ID(), ctx.Err())
		}
	}
	if _, err := task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", task.ID(), err)
	}
	return nil
}

// removeSnapshots deletes snapshots of a run that no container refers to any
// more, in the snapshotters that its lease names.
func (r *Runner) removeSnapshots(ctx context.Context, runID string) error {
	resources, err := r.client.LeasesService().ListResources(ctx, leases.Lease{ID: prefix + runID})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list resources of lease %s: %w", prefix+runID, err)
	}
	for _, res := range resources {
		name, ok := strings.CutPrefix(res.Type, "snapshots/")
		if !ok || !strings.HasPrefix(res.ID, prefix+runID) {
			continue
		}
		var sn snapshots.Snapshotter = r.client.SnapshotService(name)
		if err := sn.Remove(ctx, res.ID); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %s: %w", res.ID, err)
		}
	}
	return nil
}

// Sweep removes what an earlier agent with the same name and state folder
// left behind, except the runs for which keep is true, and returns the removed
// run ids. keep is asked when a run is about to be removed, so that one which
// begins meanwhile is safe.
func (r *Runner) Sweep(ctx context.Context, keep func(runID string) bool) ([]string, error) {
	list, err := r.client.NamespaceService().List(ctx)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("list namespaces: %w", err))
	}
	var removed []string
	var errs []error
	for _, ns := range list {
		runs, err := r.leftovers(namespaces.WithNamespace(ctx, ns))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, id := range runs {
			if keep(id) {
				continue
			}
			if err := r.Remove(ctx, ns, id); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, id)
		}
	}
	entries, _ := os.ReadDir(filepath.Join(r.cfg.StateDir, "runs"))
	for _, e := range entries {
		if len(errs) == 0 && !keep(e.Name()) {
			errs = append(errs, os.RemoveAll(r.runDir(e.Name())))
		}
	}
	return removed, r.daemon(errors.Join(errs...))
}

// leftovers returns the ids of runs that have a lease or a container in the
// namespace of ctx.
func (r *Runner) leftovers(ctx context.Context) ([]string, error) {
	seen := map[string]bool{}
	var ids []string
	add := func(labels map[string]string) {
		id := labels[labelRun]
		if labels[labelOwner] == r.owner && checkID(id) == nil && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	held, err := r.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%s", labelOwner, r.owner))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range held {
		add(l.Labels)
	}
	list, err := r.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%s", labelOwner, r.owner))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range list {
		add(c.Labels)
	}
	return ids, nil
}
