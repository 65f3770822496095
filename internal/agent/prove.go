package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Statuses of a proof.
const (
	proven  = "proven"
	denied  = "denied"
	failed  = "failed"
	skipped = "skipped"
)

// prove runs the container again under a profile and says whether it did the
// same without a refused call.
func (r *run) prove(ctx context.Context, c *confinev1.ProveCommand) {
	r.mu.Lock()
	image, first, again := r.image, r.first, r.proving
	r.proving = true
	r.mu.Unlock()
	if again {
		return // the answer is on its way already
	}
	var proof *confinev1.Proof
	switch {
	case first == nil:
		r.fail(fault.Stage("prove", fault.New(codes.FailedPrecondition, "there is nothing to prove before the first run has been observed")))
		return
	case image == nil:
		proof = &confinev1.Proof{Status: skipped, Detail: "container " + first.container + " belongs to somebody else and is not run again; start it under this profile yourself, or profile its image"}
	default:
		var err error
		if proof, err = r.proveImage(ctx, c, image, first); err != nil {
			r.fail(fault.Stage("prove", err))
			return
		}
	}
	r.progress("prove", true, len(proof.Denied), 0, "%s: %s", proof.Status, proof.Detail)
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Proof{Proof: proof}})
}

func (r *run) proveImage(ctx context.Context, c *confinev1.ProveCommand, image *runner.Image, first *observed) (*confinev1.Proof, error) {
	profile, err := readProfile(c.GetProfile())
	if err != nil {
		return nil, err
	}
	monitor, err := r.proofMonitor(ctx)
	if err != nil {
		return &confinev1.Proof{Status: skipped, Detail: err.Error()}, nil
	}
	at := attempt{stage: "prove", suffix: "-proof", seccomp: profile, monitor: monitor}
	seen, root, err := r.watchImage(ctx, image, at)
	var died *errMonitorDied
	if errors.As(err, &died) {
		at.suffix = "-proof2"
		seen, root, err = r.watchImage(ctx, image, at)
	}
	if err != nil {
		if ctx.Err() != nil || runner.Gone(err) {
			return nil, err
		}
		var refused *errRefused
		if errors.As(err, &refused) {
			return &confinev1.Proof{Status: denied, Denied: refused.denied, Detail: refused.Error()}, nil
		}
		return &confinev1.Proof{Status: failed, Detail: "the container does not run under the profile: " + err.Error()}, nil
	}
	root.Close()
	return judge(first, seen), nil
}

// errRefused is the end of a container that did not get as far as its
// entrypoint, with the calls that were refused to its runtime.
type errRefused struct {
	err    error
	denied []*confinev1.Denied
}

func (e *errRefused) Error() string {
	return fmt.Sprintf("%s, and the container does not start: %v", refusedText(e.denied), e.err)
}
func (e *errRefused) Unwrap() error { return e.err }

// refused ends the watch of a container that failed under a profile, and adds
// the refused calls to err when there are any.
func (w *watched) refused(ctx context.Context, err error) error {
	snap, broken := w.stop(ctx)
	w.collector.Finish()
	if broken != nil {
		return err
	}
	return refusedBy(deniedCalls(snap, w.collector), err)
}

// refusedBy adds refused calls to err when there are any.
func refusedBy(calls []*confinev1.Denied, err error) error {
	if len(calls) == 0 {
		return err
	}
	return &errRefused{err, calls}
}

func refusedText(calls []*confinev1.Denied) string {
	if len(calls) == 1 {
		return fmt.Sprintf("the call %s was refused", calls[0].GetText())
	}
	return fmt.Sprintf("%d calls were refused, the first is %s", len(calls), calls[0].GetText())
}

// proofMonitor names the monitor of a proof: the run's own if it sees refused
// calls, otherwise the default one.
func (r *run) proofMonitor(ctx context.Context) (string, error) {
	own := r.monitorName()
	for _, name := range []string{own, defaultMonitor} {
		if can, err := r.agent.monitors.can(ctx, name); err == nil && can.GetDeniedSyscalls() {
			return name, nil
		}
	}
	return "", fmt.Errorf("monitor %s does not see refused calls, and monitor %s, which does, does not work on this node; so nothing can be proven", own, defaultMonitor)
}

// readProfile turns OCI's linux.seccomp into its Go form.
func readProfile(s *structpb.Struct) (*specs.LinuxSeccomp, error) {
	raw, err := protojson.Marshal(s)
	if err != nil {
		return nil, fault.New(codes.InvalidArgument, "read profile: %w", err)
	}
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fault.New(codes.InvalidArgument, "read profile: %w", err)
	}
	if p.DefaultAction == "" {
		return nil, fault.New(codes.InvalidArgument, "read profile: it has no defaultAction")
	}
	return &p, nil
}

// judge compares the run under the profile with the first.
func judge(first, seen *observed) *confinev1.Proof {
	p := &confinev1.Proof{Denied: seen.denied, Seconds: seen.seconds, Status: proven, Recorded: recorded(seen.snapshot, seen.outside)}
	same, difference := settledAlike(first, seen)
	if first.replayed {
		same, difference = settledWell(seen)
	}
	switch {
	case len(seen.denied) > 0:
		p.Status = denied
		p.Detail = refusedText(seen.denied)
		if !same {
			p.Detail += "; " + difference
		}
	case !same:
		p.Status = failed
		p.Detail = difference
		if len(seen.output) > 0 {
			p.Detail += "; last output: " + strings.Join(seen.output[max(0, len(seen.output)-5):], " | ")
		}
	case seen.snapshot.GetLost() > 0:
		p.Status = failed
		p.Detail = fmt.Sprintf("the monitor lost %d events, so that a refused call could be missing", seen.snapshot.GetLost())
	default:
		p.Detail = "settled as before: " + seen.outcome.Text
		if first.replayed {
			p.Detail = "settled: " + seen.outcome.Text
		}
	}
	return p
}

// settledWell reports whether a run came to a good end, for want of another run
// to compare it with.
func settledWell(seen *observed) (well bool, problem string) {
	switch {
	case seen.outcome.WorkloadErr != nil:
		return false, seen.outcome.WorkloadErr.Error()
	case seen.outcome.Kind == settle.Limit:
		return false, "under the profile it did not settle in time"
	case seen.exitCode != nil && *seen.exitCode != 0:
		return false, fmt.Sprintf("under the profile it ended with status %d; there is no run without the profile to compare with", *seen.exitCode)
	}
	return true, ""
}

// settledAlike reports whether two runs of a container came to the same end.
func settledAlike(first, seen *observed) (same bool, difference string) {
	a, b := first.outcome, seen.outcome
	switch {
	case a.WorkloadErr == nil && b.WorkloadErr != nil:
		return false, b.WorkloadErr.Error()
	case a.Kind != b.Kind:
		text := b.Text
		if b.Kind == settle.Exited && seen.exitCode != nil {
			text = fmt.Sprintf("exited with status %d", *seen.exitCode)
		}
		return false, fmt.Sprintf("without the profile it settled by %q, under it by %q", a.Text, text)
	case a.Kind == settle.Exited && first.exitCode != nil && seen.exitCode != nil && *first.exitCode != *seen.exitCode:
		return false, fmt.Sprintf("without the profile it ended with status %d, under it with %d", *first.exitCode, *seen.exitCode)
	case seen.killed && !first.killed:
		return false, "under the profile it did not end after its stop signal"
	}
	return true, ""
}
