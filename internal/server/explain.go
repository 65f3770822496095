package server

import (
	"context"
	"errors"
	"math"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxChains bounds the chains of one answer.
const maxChains = 1000

// Explain implements confine.v1.OperatorService.
func (s *Server) Explain(ctx context.Context, req *confinev1.ExplainRequest) (*confinev1.ExplainResponse, error) {
	result, err := s.named(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	call := req.GetCall()
	if arch, ok := syscalls.ForPlatform(result.GetPlatform()); ok {
		if err := checkCall(arch, result, call); err != nil {
			return nil, err
		}
	}
	out := &confinev1.ExplainResponse{Id: result.GetId(), Image: result.GetImage(), Platform: result.GetPlatform(), Node: result.GetNode()}
	if i := slices.IndexFunc(result.GetSyscalls(), func(c *confinev1.Syscall) bool { return c.GetName() == call }); i >= 0 {
		out.Syscall = result.GetSyscalls()[i]
	}
	e, err := s.store.Explanation(ctx, result.GetId())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return out, nil // made before explanations were kept
	case err != nil:
		return nil, storeError(err)
	}
	out.Explained = true
	answer(out, e, call, int(min(req.GetLimit(), maxChains)))
	return out, nil
}

// checkCall refuses names that no table has.
func checkCall(arch syscalls.Arch, r *confinev1.Result, call string) error {
	if _, ok := syscalls.Number(arch, call); ok {
		return nil
	}
	if slices.ContainsFunc(r.GetSyscalls(), func(c *confinev1.Syscall) bool { return c.GetName() == call }) {
		return nil // of the 32-bit table
	}
	return status.Error(codes.InvalidArgument, syscalls.Unknown(arch, clean(call, 64)))
}

// answer picks what an explanation says of one call.
func answer(out *confinev1.ExplainResponse, e *confinev1.Explanation, call string, limit int) {
	places := 0
	for _, p := range e.GetPlaces() {
		if p.GetCall() != call && (p.GetCall() != "" || !fallsBack(out.GetSyscall())) {
			continue
		}
		if places++; places <= limit {
			out.Chains = append(out.Chains, &confinev1.Chain{Frames: chainOf(e, p.GetStep()), Place: p})
		}
	}
	out.Left = uint32(max(0, places-limit)) + e.GetLeft()[call]
	if out.GetSyscall() == nil {
		for _, p := range e.GetAbsent() {
			if p.GetCall() == call {
				out.Absent = append(out.Absent, p)
			}
		}
	}
}

// fallsBack reports whether a call is allowed because a number isn't known.
func fallsBack(c *confinev1.Syscall) bool {
	return slices.ContainsFunc(c.GetReasons(), func(r *confinev1.Reason) bool { return r.GetKind() == reasonFallback && len(r.GetChain()) > 0 })
}

// chainOf lists the frames up to a step.
func chainOf(e *confinev1.Explanation, step uint32) []*confinev1.Frame {
	var out []*confinev1.Frame
	steps := e.GetSteps()
	for range steps { // no chain is longer
		if int(step) >= len(steps) {
			break
		}
		out = append(out, steps[step].GetFrame())
		parent := steps[step].GetParent()
		if parent == 0 {
			break
		}
		step = parent - 1
	}
	slices.Reverse(out)
	return out
}

// protoExplanation is what the store keeps of an explanation.
func protoExplanation(e *analysis.Explanation) *confinev1.Explanation {
	if e == nil {
		return nil
	}
	out := &confinev1.Explanation{Left: map[string]uint32{}}
	for _, s := range e.Steps {
		out.Steps = append(out.Steps, &confinev1.Step{Frame: protoFrame(s.Frame), Parent: uint32(s.Parent + 1)})
	}
	for _, p := range e.Places {
		out.Places = append(out.Places, &confinev1.Place{
			Call: p.Call, Step: uint32(p.Step), Object: clean(p.Object, maxPath), Address: p.Address, Site: protoSite(p.Site), Compat: p.Compat, Detail: clean(p.Detail, maxText),
		})
	}
	for call, n := range e.Left {
		out.Left[call] = uint32(n)
	}
	for _, p := range e.Absent {
		out.Absent = append(out.Absent, &confinev1.AbsentPlace{
			Call: p.Call, Object: clean(p.Object, maxPath), Symbol: clean(p.Symbol, maxText), Function: p.Function, Address: p.Address,
			Exports: cleanAll(p.Exports, maxText, 16), Users: cleanAll(p.Users, maxText, 16), More: uint32(p.More),
		})
	}
	return out
}

func protoChain(chain []analysis.Frame) []*confinev1.Frame {
	var out []*confinev1.Frame
	for _, f := range chain {
		out = append(out, protoFrame(f))
	}
	return out
}

func protoFrame(f analysis.Frame) *confinev1.Frame {
	return &confinev1.Frame{
		Kind: f.Kind, Object: clean(f.Object, maxPath), Symbol: clean(f.Symbol, maxText), Address: f.Address,
		Size: uint32(min(f.Size, math.MaxUint32)), Edge: f.Edge,
	}
}

func protoSite(s analysis.Site) *confinev1.Site {
	if s == (analysis.Site{}) {
		return nil
	}
	return &confinev1.Site{Object: clean(s.Object, maxPath), Address: s.Address, Wrappers: uint32(s.Wrappers)}
}
