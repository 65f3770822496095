package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/observe"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// replayer is the monitor of a trace when the run names none.
	replayer = "sysdig"
	// replayLimit bounds the reading of a trace when the run states no limit.
	replayLimit = 10 * time.Minute
	// hostProcesses names the processes of a trace that are in no container.
	hostProcesses = "host"
	// settledByCapture is what "settles" a trace.
	settledByCapture settle.Kind = "end of the trace"
)

// observeCapture makes the observation from a trace that was recorded
// elsewhere: its files are looked up in the image's root.
func (r *run) observeCapture(ctx context.Context) error {
	limit := r.spec.GetTimeout().AsDuration()
	if limit <= 0 {
		limit = replayLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fault.New(codes.DeadlineExceeded, "the trace was not read within %v; give it more with --timeout", limit))
	defer cancel()
	err := r.replayCapture(ctx)
	if err != nil && ctx.Err() != nil && r.ctx.Err() == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (r *run) replayCapture(ctx context.Context) error {
	r.progress("image", false, 0, 0, "fetch %s", r.spec.GetCapture().GetName())
	client, err := r.agent.monitors.get(ctx, r.monitorName())
	if err != nil {
		return fault.Stage("image", err)
	}
	if !client.can.GetReplay() {
		return fault.Stage("image", fault.New(codes.FailedPrecondition, "monitor %s can't replay traces; use --monitor %s", r.monitorName(), replayer))
	}
	file, err := r.fetchCapture(ctx)
	if err != nil {
		return fault.Stage("image", err)
	}
	found, err := client.InspectCapture(ctx, file)
	if err != nil {
		return fault.Stage("image", fault.New(codes.FailedPrecondition, "%w", err))
	}
	chosen, err := chooseCaptured(found.GetContainers(), r.spec.GetCaptureContainer())
	if err != nil {
		return fault.Stage("image", err)
	}
	ref := r.spec.GetImage()
	if ref == "" {
		ref = chosen.GetImage()
	}
	if ref == "" {
		return fault.Stage("image", fault.New(codes.FailedPrecondition, "the trace doesn't tell the image of %s; name it: --capture FILE IMAGE", describeCaptured(chosen)))
	}
	image, err := r.agent.runner.Image(ctx, r.id, r.spec.GetNamespace(), ref, r.spec.GetSnapshotter())
	if err != nil {
		return fault.Stage("image", err)
	}
	r.progress("image", true, 0, 0, "%s %s", image.Name, image.Digest)
	seen, root, err := r.replay(ctx, client.Client, image, file, chosen)
	if err != nil {
		return fault.Stage("run", err)
	}
	r.tell(image, root, seen)
	return nil
}

// replay collects the events of a trace in the root of a container that is
// made of the image and never started. The root is the caller's to close.
func (r *run) replay(ctx context.Context, client *monitor.Client, image *runner.Image, file string, chosen *confinev1.CapturedContainer) (_ *observed, _ *heldRoot, err error) {
	began := time.Now()
	r.progress("run", false, 0, 0, "replay %s of %s", describeCaptured(chosen), r.spec.GetCapture().GetName())
	c, err := r.agent.runner.Create(ctx, runner.Spec{
		RunID: r.id, Suffix: "-trace", Namespace: r.spec.GetNamespace(), Image: image,
		Args: r.spec.GetArgs(), Env: r.spec.GetEnv(), Mounts: r.spec.GetMounts(), User: r.spec.GetUser(),
		NewPrivileges: r.newPrivileges(),
	})
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	defer c.Kill()
	root, err := holdRoot(c.PID())
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	seen := &observed{
		spec: c.Spec, container: c.ID, monitor: r.monitorName(), noNewPrivs: !r.newPrivileges(), replayed: true,
		outcome: settle.Outcome{Kind: settledByCapture, Text: string(settledByCapture)},
	}
	if seen.runtime, err = r.runtimeOf(ctx, c.PID()); err != nil {
		return nil, nil, err
	}
	seen.floor = r.measureFloor(ctx, r.agent.cfg.Runtime, seen)
	container := chosen.GetId()
	w, err := r.watchTrace(ctx, client, &confinev1.Scope{
		Pid: int32(c.PID()), Capture: &confinev1.Capture{Path: file, Container: container},
	}, root)
	if err != nil {
		return nil, nil, err
	}
	snap, err := w.watch.Stop(ctx)
	<-w.drained
	if err != nil {
		w.collector.Finish()
		if errors.Is(err, monitor.ErrEnded) {
			return nil, nil, &errMonitorDied{err}
		}
		return nil, nil, fault.New(codes.FailedPrecondition, "replay the trace: %w", err)
	}
	seen.snapshot = snap
	r.finish(seen, w, root)
	absentFromImage(seen, image.Name)
	gaps(seen)
	files, programs := w.collector.Counts()
	r.progress("run", true, files, 0, "%s: %d files, %d programs", describeCaptured(chosen), files, programs)
	if programs == 0 {
		return nil, nil, fault.New(codes.FailedPrecondition, "in the trace, %s executes nothing and does nothing", describeCaptured(chosen))
	}
	c.Kill()
	c.DeleteTask(ctx)
	seen.seconds = time.Since(began).Seconds()
	<-seen.floor.done
	return seen, root, nil
}

// watchTrace is watchScope for a trace.
func (r *run) watchTrace(ctx context.Context, client *monitor.Client, scope *confinev1.Scope, root *heldRoot) (*watched, error) {
	w := &watched{collector: observe.New(ctx, root.Dir, root, observe.Options{Recorded: true})}
	watch, err := client.Watch(context.WithoutCancel(ctx), scope)
	if err != nil {
		return nil, fault.New(codes.FailedPrecondition, "replay the trace: %w", err)
	}
	w.tap = newTap(watch, w.collector.Handle)
	return w, nil
}

// absentFromImage says of files that the trace names and the image lacks what
// that means.
func absentFromImage(seen *observed, image string) {
	for _, f := range seen.files {
		if f.GetError() != "" {
			f.Error = "the trace names it, and " + image + " doesn't have it, or it can't be read: " + f.GetError()
		}
	}
	for _, i := range seen.incomplete {
		if i.GetKind() == "unreadable-object" || i.GetKind() == "unreadable-script" {
			i.Detail = "the trace names it, and it can't be analysed: " + image + " doesn't have it, or it can't be read; is it the image that was traced?"
		}
	}
}

// gaps says of what was lost where it was lost.
func gaps(seen *observed) {
	var reasons []string
	for _, l := range seen.snapshot.GetLosses()[:min(len(seen.snapshot.GetLosses()), maxLossReasons)] {
		reasons = append(reasons, l.GetReason())
	}
	for _, i := range seen.incomplete {
		if i.GetKind() == "lost-events" {
			i.Detail = fmt.Sprintf("the trace has %d gaps (%s): record it again", seen.snapshot.GetLost(), strings.Join(reasons, ", "))
		}
	}
}

// chooseCaptured picks the container of a trace that the operator means.
func chooseCaptured(all []*confinev1.CapturedContainer, wanted string) (*confinev1.CapturedContainer, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(c *confinev1.CapturedContainer) bool { return c.GetId() == "" })
	slices.SortFunc(all, func(a, b *confinev1.CapturedContainer) int { return strings.Compare(a.GetId(), b.GetId()) })
	containers := slices.DeleteFunc(slices.Clone(all), func(c *confinev1.CapturedContainer) bool { return c.GetId() == hostProcesses })
	if wanted == "" {
		switch {
		case len(containers) == 1:
			return containers[0], nil
		case len(containers) > 1:
			return nil, fault.New(codes.InvalidArgument, "the trace holds %d containers: %s; choose one with --capture-container (%q for processes in none)", len(containers), listCaptured(containers), hostProcesses)
		case len(all) == 1:
			return all[0], nil
		}
		return nil, fault.New(codes.FailedPrecondition, "the trace holds no event of any process")
	}
	var matches []*confinev1.CapturedContainer
	for _, c := range all {
		if matchesCaptured(c, wanted) {
			matches = append(matches, c)
		}
	}
	switch len(matches) {
	case 1:
		return matches[0], nil
	case 0:
		return nil, fault.New(codes.NotFound, "the trace holds no container %q; it holds: %s", wanted, listCaptured(all))
	}
	return nil, fault.New(codes.InvalidArgument, "%q means %d containers of the trace: %s; give the id", wanted, len(matches), listCaptured(matches))
}

// matchesCaptured compares a container of a trace, whose id is cut to its first
// digits, with an id, name or image.
func matchesCaptured(c *confinev1.CapturedContainer, wanted string) bool {
	switch {
	case c.GetId() == wanted, c.GetName() == wanted && wanted != "", c.GetImage() == wanted && wanted != "":
		return true
	case c.GetId() == hostProcesses:
		return false
	}
	const shortest = 4
	return len(wanted) >= shortest && (strings.HasPrefix(c.GetId(), wanted) || strings.HasPrefix(wanted, c.GetId()))
}

func describeCaptured(c *confinev1.CapturedContainer) string {
	if c.GetId() == hostProcesses {
		return "the host's processes"
	}
	text := "container " + c.GetId()
	if c.GetName() != "" {
		text += " (" + c.GetName() + ")"
	}
	return text
}

func listCaptured(all []*confinev1.CapturedContainer) string {
	var names []string
	for _, c := range all {
		text := c.GetId()
		for _, more := range []string{c.GetName(), c.GetImage()} {
			if more != "" && more != text {
				text += " " + more
			}
		}
		names = append(names, text)
	}
	const most = 20
	if len(names) > most {
		names = append(names[:most], "...")
	}
	return strings.Join(names, ", ")
}

// fetchCapture gets the run's trace from the server into a file of the run. A
// break of the connection is waited out.
func (r *run) fetchCapture(ctx context.Context) (string, error) {
	dir, err := r.agent.runner.Folder(r.id, "trace")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "trace.scap")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("keep the trace: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	at := uint64(0)
	for try := 1; at < r.spec.GetCapture().GetSize(); try++ {
		before := at
		at, err = r.fetchFrom(ctx, io.MultiWriter(f, h), at)
		switch {
		case err == nil && at == before:
			return "", fault.New(codes.DataLoss, "the server sent %d of %d bytes of the trace", at, r.spec.GetCapture().GetSize())
		case err == nil, at > before:
			try = 0
		case !transient(err) || try >= uploadTries:
			return "", fmt.Errorf("fetch the trace: %w", err)
		}
		if err == nil {
			continue
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != r.spec.GetCapture().GetSha256() {
		return "", fault.New(codes.DataLoss, "the trace that the server sent has another content than the one that was uploaded")
	}
	return file, nil
}

// fetchFrom appends what the server sends and returns how far it is.
func (r *run) fetchFrom(ctx context.Context, to io.Writer, at uint64) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := r.server.FetchCapture(ctx, &confinev1.FetchCaptureRequest{RunId: r.id, Offset: at})
	if err != nil {
		return at, err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		if at+uint64(len(m.GetData())) > r.spec.GetCapture().GetSize() {
			return at, fault.New(codes.DataLoss, "the server sends more than the trace has")
		}
		if _, err := to.Write(m.GetData()); err != nil {
			return at, fmt.Errorf("keep the trace: %w", err)
		}
		at += uint64(len(m.GetData()))
	}
}
