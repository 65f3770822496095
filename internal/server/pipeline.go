package server

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/confinehq/confine/internal/server/remote"
	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/analysis"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// uploadBatch bounds the objects of one upload command.
	uploadBatch = 5000
	// keepTime bounds the writing of a result or a record.
	keepTime = 30 * time.Second
)

// carryOut makes a run from its start to its stored result. When it returns,
// the node has removed the run, or nobody can tell.
func (s *Server) carryOut(ctx context.Context, r *run) (*confinev1.Result, error) {
	stop := context.AfterFunc(s.stopping, func() { r.fail(errStopping) })
	defer stop()
	log := s.log.With("run", r.id, "node", r.nodeName())
	record := store.Run{ID: r.id, Node: r.nodeName(), Image: subject(r.spec), State: store.RunActive, Started: r.began}
	s.keepRecord(ctx, record)
	log.Info("run started", "image", record.Image)

	result, err := contained(s.log, "the server", func() (*confinev1.Result, error) { return s.make(r) })
	s.dismiss(r, err)
	if err == nil {
		r.mu.Lock()
		result.Stages = r.clock.seconds()
		for _, left := range r.leftovers {
			result.Notes = append(result.Notes, &confinev1.Incomplete{Kind: "leftovers", Detail: left})
		}
		r.mu.Unlock()
		err = s.keepResult(ctx, result, r.explained)
	}
	record.State, record.Ended = store.RunDone, time.Now()
	if err != nil {
		record.State, record.Error = store.RunFailed, status.Convert(err).Message()
		log.Warn("run failed", "error", record.Error)
	} else {
		log.Info("run done", "calls", len(result.GetSyscalls()), "incomplete", len(result.GetIncomplete()), "proof", result.GetProof().GetStatus(), "seconds", time.Since(r.began).Seconds())
	}
	s.keepRecord(ctx, record)
	return result, err
}

func subject(spec *confinev1.RunSpec) string {
	switch {
	case spec.GetImage() != "":
		return spec.GetImage()
	case spec.GetCapture() != nil:
		return "trace " + clean(spec.GetCapture().GetName(), 128)
	}
	return "container " + spec.GetContainerId()
}

// make is the run itself.
func (s *Server) make(r *run) (*confinev1.Result, error) {
	s.agents.command(r, keyStart, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_StartRun{
		StartRun: &confinev1.StartRun{Spec: r.spec},
	}})
	said, err := wait(r.ctx, r, r.observation)
	if err != nil {
		return nil, r.cause()
	}
	seen, err := checkObservation(said)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "node %s sent an observation that can't be used: %v", r.nodeName(), err)
	}
	seen.replayed = r.spec.GetCapture() != nil
	failed, err := s.collect(r, seen)
	if err != nil {
		return nil, err
	}
	found, err := s.analyse(r, seen)
	if err != nil {
		return nil, err
	}
	r.explained = protoExplanation(found.Explanation)
	set := newCallSet(seen, found)
	profile, err := set.profile()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "run %s: %v", r.id, err)
	}
	proof, err := s.prove(r, seen, profile)
	if err != nil {
		return nil, err
	}
	return assemble(r, seen, found, set, profile, proof, failed), nil
}

// dismiss tells the node that the run is over, and waits until it has removed
// everything.
func (s *Server) dismiss(r *run, cause error) {
	defer r.release()
	defer s.agents.end(r)
	reason := "done"
	if cause != nil {
		reason = status.Convert(cause).Message()
	}
	s.agents.command(r, keyEnd, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_EndRun{
		EndRun: &confinev1.EndRun{Reason: clean(reason, 512)},
	}})
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
		r.mu.Lock()
		r.leftovers = append(r.leftovers, fmt.Sprintf("node %s has not said within %v that the run's container is gone", r.nodeName(), endTime))
		r.mu.Unlock()
		s.log.Warn("node does not end a run", "run", r.id, "node", r.nodeName())
	}
	r.cancel(nil)
}

// collect has the node send what was seen and isn't here yet. It returns what
// could not be sent.
func (s *Server) collect(r *run, seen *observation) ([]*confinev1.Incomplete, error) {
	var refs []*confinev1.ObjectRef
	known := map[string]bool{}
	for _, f := range seen.files {
		if f.GetKind() != "elf" || f.GetSha256() == "" || known[f.GetSha256()] {
			continue
		}
		known[f.GetSha256()] = true
		d, err := store.ParseDigest(f.GetSha256())
		if err != nil {
			return nil, status.Errorf(codes.Internal, "node %s: %v", r.nodeName(), err)
		}
		if have, _ := s.store.Objects.Has(d); have && !r.spec.GetNoCache() {
			continue
		}
		refs = append(refs, &confinev1.ObjectRef{Path: f.GetPath(), Sha256: f.GetSha256(), Size: f.GetSize()})
	}
	r.tell(stageUpload, false, 0, len(refs), "%d of %d objects are new", len(refs), len(known))
	var failed []*confinev1.Incomplete
	for batch := range slices.Chunk(refs, uploadBatch) {
		bad, err := r.upload(r.ctx, batch)
		if err != nil {
			return nil, r.cause()
		}
		failed = append(failed, bad...)
	}
	r.tell(stageUpload, true, len(refs), len(refs), "%d of %d objects were new", len(refs), len(known))
	return failed, nil
}

// analyse finds the calls of everything that was seen, and of what it reaches.
func (s *Server) analyse(r *run, seen *observation) (*analysis.Result, error) {
	r.tell(stageAnalyse, false, 0, 0, "waiting for other analyses")
	select {
	case s.analyses <- struct{}{}:
		defer func() { <-s.analyses }()
	case <-r.ctx.Done():
		return nil, r.cause()
	}
	root := remote.New(r)
	if err := root.Prefetch(r.ctx, seen.paths()); err != nil {
		return nil, s.analysisError(r, err)
	}
	programs, err := seen.programs(r.ctx, root, r.spec)
	if err != nil {
		return nil, s.analysisError(r, err)
	}
	req := analysis.Request{Root: root, Programs: programs, Options: analysis.Options{
		OnUnresolved: analysis.Unresolved(r.spec.GetOnUnresolved()),
		NoArgs:       r.spec.GetNoArgs(),
		Observed:     true, Explain: true,
		Progress: func(done, total int) { r.tell(stageAnalyse, false, done, total, "objects") },
	}}
	if !r.spec.GetNoCache() {
		req.Options.Cache, req.Options.Memory = s.store.Facts(), s.memory
	}
	found, err := contained(s.log, "the analysis", func() (*analysis.Result, error) { return s.cfg.Analyze(r.ctx, req) })
	if err != nil {
		return nil, s.analysisError(r, err)
	}
	seen.compareDigests(r.ctx, root)
	r.tell(stageAnalyse, true, len(found.Objects), len(found.Objects), "%d objects, %d calls", len(found.Objects), len(found.Syscalls))
	return found, nil
}

// contained turns a panic over hostile input into an error, which says who
// gave up.
func contained[T any](log *slog.Logger, who string, f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error(who+" panicked", "panic", p, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "%s gave up over something that it can't cope with; the server's log has the details, please report them", who)
		}
	}()
	return f()
}

func (s *Server) analysisError(r *run, err error) error {
	if r.ctx.Err() != nil {
		return r.cause()
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Errorf(codes.FailedPrecondition, "analyse %s: %v", subject(r.spec), err)
}

// prove has the node run the container again under the profile.
func (s *Server) prove(r *run, seen *observation, profile *structpb.Struct) (*confinev1.Proof, error) {
	if r.spec.GetNoProof() {
		return &confinev1.Proof{Status: proofSkipped, Detail: "not asked for (--no-proof)"}, nil
	}
	r.tell(stageProve, false, 0, 0, "run again under the profile")
	s.agents.command(r, keyProve, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Prove{
		Prove: &confinev1.ProveCommand{Profile: profile, SettledBy: seen.run.GetSettledBy()},
	}})
	p, err := wait(r.ctx, r, r.proof)
	if err != nil {
		return nil, r.cause()
	}
	p = checkProof(p)
	r.tell(stageProve, true, 0, 0, "%s", strings.TrimSuffix(p.GetStatus()+": "+p.GetDetail(), ": "))
	return p, nil
}

// keepResult stores a result. It doesn't end with the operator's call: what
// was made is kept.
func (s *Server) keepResult(ctx context.Context, result *confinev1.Result, explained *confinev1.Explanation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	if explained != nil {
		if err := s.store.PutExplanation(ctx, result.GetId(), explained); err != nil {
			return storeError(err)
		}
	}
	if err := s.store.PutResult(ctx, result, summaryOf(result)); err != nil {
		return storeError(err)
	}
	return nil
}

func (s *Server) keepRecord(ctx context.Context, record store.Run) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	if err := s.store.PutRun(ctx, record); err != nil {
		s.log.Warn("cannot keep the record of a run", "run", record.ID, "error", err)
	}
}

// canonical reports whether an agent's path is one that it may name: absolute,
// resolved, printable as text.
func canonical(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && len(p) < maxPath && !strings.ContainsRune(p, 0) && utf8.ValidString(p)
}
