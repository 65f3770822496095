package server

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// UploadCapture implements confine.v1.OperatorService: it keeps a trace under
// its content, as objects are kept, and only if size and digest are right.
func (s *Server) UploadCapture(stream grpc.ClientStreamingServer[confinev1.UploadCaptureRequest, confinev1.UploadCaptureResponse]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	ref := m.GetCapture()
	d, err := checkCapture(ref)
	if err != nil {
		return err
	}
	if limit := s.store.Objects.Limit(); ref.GetSize() > uint64(limit) {
		return status.Errorf(codes.InvalidArgument, "the trace has %d bytes, more than the limit of %d; record less, or with a filter (sysdig -w FILE container.name=...)", ref.GetSize(), limit)
	}
	answer := &confinev1.UploadCaptureResponse{Capture: &confinev1.CaptureRef{Sha256: d.String(), Size: ref.GetSize()}}
	if have, _ := s.store.Objects.Has(d); have {
		return stream.SendAndClose(answer)
	}
	u, err := s.store.Objects.Begin(d, int64(ref.GetSize()), 0)
	if err != nil {
		return storeError(err)
	}
	defer u.Abort()
	for err == nil {
		if len(m.GetData()) > maxChunk {
			return status.Errorf(codes.InvalidArgument, "a chunk holds at most %d bytes", maxChunk)
		}
		if _, err := u.Write(m.GetData()); err != nil {
			return storeError(err)
		}
		m, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if err := u.Commit(); err != nil {
		return storeError(err)
	}
	return stream.SendAndClose(answer)
}

// checkCapture returns the digest of a trace that a request names.
func checkCapture(ref *confinev1.CaptureRef) (store.Digest, error) {
	d, err := store.ParseDigest(ref.GetSha256())
	switch {
	case err != nil:
		return store.Digest{}, status.Errorf(codes.InvalidArgument, "trace: %v", err)
	case ref.GetSize() == 0:
		return store.Digest{}, status.Error(codes.InvalidArgument, "the trace is empty")
	}
	return d, nil
}

// holdCapture keeps the trace of a run until its end; it has to be there.
func (r *run) holdCapture() error {
	ref := r.spec.GetCapture()
	if ref == nil {
		return nil
	}
	d, err := checkCapture(ref)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.unpin = append(r.unpin, r.store.Objects.Pin(d))
	r.mu.Unlock()
	f, err := r.store.Objects.Open(d)
	if err != nil {
		return status.Error(codes.FailedPrecondition, "the trace was not uploaded, or has been removed meanwhile; run the command again")
	}
	defer f.Close()
	if uint64(f.Size()) != ref.GetSize() {
		return status.Errorf(codes.InvalidArgument, "the trace has %d bytes, not %d", f.Size(), ref.GetSize())
	}
	return nil
}

// FetchCapture implements confine.v1.AgentService: a node gets the trace of a
// run of its own.
func (s *Server) FetchCapture(req *confinev1.FetchCaptureRequest, stream grpc.ServerStreamingServer[confinev1.FetchCaptureResponse]) error {
	who := callerOf(stream.Context())
	r := s.agents.runOf(who.Name, req.GetRunId(), who.local)
	if r == nil || r.spec.GetCapture() == nil {
		return status.Errorf(codes.NotFound, "run %s has no trace for this node", clean(req.GetRunId(), 64))
	}
	d, err := checkCapture(r.spec.GetCapture())
	if err != nil {
		return err
	}
	f, err := s.store.Objects.Open(d)
	if err != nil {
		return storeError(err)
	}
	defer f.Close()
	if req.GetOffset() > uint64(f.Size()) {
		return status.Errorf(codes.OutOfRange, "the trace has %d bytes", f.Size())
	}
	part := io.NewSectionReader(f, int64(req.GetOffset()), f.Size()-int64(req.GetOffset()))
	for {
		// A fresh slice for each message: gRPC may keep it after Send.
		buf := make([]byte, maxChunk)
		n, err := io.ReadFull(part, buf)
		if n > 0 {
			if err := stream.Send(&confinev1.FetchCaptureResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return status.Errorf(codes.Internal, "read the trace: %v", err)
		}
	}
}

// runOf returns a run that a node holds, or with any that some node holds;
// nil when there is none.
func (a *agents) runOf(name, id string, anyNode bool) *run {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, node := range a.nodes {
		if n == name || anyNode {
			if r := node.runs[id]; r != nil {
				return r
			}
		}
	}
	return nil
}
