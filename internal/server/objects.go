package server

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// maxFind bounds the objects of one FindMissing.
	maxFind = 10_000
	// maxChunk bounds the data of one message of an upload, in bytes.
	maxChunk = 1 << 20
)

// FindMissing implements confine.v1.AgentService. It answers only for objects
// that a run on the caller's node asked for.
func (s *Server) FindMissing(ctx context.Context, req *confinev1.FindMissingRequest) (*confinev1.FindMissingResponse, error) {
	if len(req.GetObjects()) > maxFind {
		return nil, status.Errorf(codes.InvalidArgument, "ask about at most %d objects at once", maxFind)
	}
	out := &confinev1.FindMissingResponse{}
	for _, ref := range req.GetObjects() {
		w, err := s.wanted(ctx, ref)
		if err != nil {
			return nil, err
		}
		have, offset := s.store.Objects.Has(w.digest)
		switch {
		case have && !w.isFresh():
			continue
		case w.isFresh() || uint64(offset) > ref.GetSize():
			offset = 0
		}
		out.Missing = append(out.Missing, &confinev1.MissingObject{Sha256: w.digest.String(), Offset: uint64(offset)})
	}
	return out, nil
}

// wanted finds what the server asked the caller for.
func (s *Server) wanted(ctx context.Context, ref *confinev1.ObjectRef) (*want, error) {
	who := callerOf(ctx)
	var w *want
	if who.local {
		w = s.agents.wantedByAny(ref.GetSha256())
	} else {
		w = s.agents.wanted(who.Name, ref.GetSha256())
	}
	if w == nil {
		return nil, status.Error(codes.FailedPrecondition, "no run asked this node for the object "+clean(ref.GetSha256(), 64))
	}
	if w.size != ref.GetSize() {
		return nil, status.Errorf(codes.InvalidArgument, "object %s was announced with %d bytes, not %d", w.digest, w.size, ref.GetSize())
	}
	return w, nil
}

// Upload implements confine.v1.AgentService: it takes the content of one
// object, and keeps it only when size and digest are right.
func (s *Server) Upload(stream grpc.ClientStreamingServer[confinev1.UploadRequest, confinev1.UploadResponse]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	w, err := s.wanted(stream.Context(), m.GetObject())
	if err != nil {
		return err
	}
	u, err := s.store.Objects.Begin(w.digest, int64(w.size), int64(m.GetOffset()))
	if err != nil {
		return storeError(err)
	}
	defer u.Abort()
	for err == nil {
		if err := chunk(u, m); err != nil {
			return err
		}
		m, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if err := u.Commit(); err != nil {
		return storeError(err)
	}
	w.got()
	return stream.SendAndClose(&confinev1.UploadResponse{Sha256: w.digest.String(), Size: w.size})
}

func chunk(u *store.Upload, m *confinev1.UploadRequest) error {
	switch {
	case len(m.GetData()) > maxChunk:
		return status.Errorf(codes.InvalidArgument, "a chunk holds at most %d bytes", maxChunk)
	case m.GetOffset() != uint64(u.Offset()):
		return status.Errorf(codes.OutOfRange, "the next chunk starts at %d, not at %d", u.Offset(), m.GetOffset())
	}
	_, err := u.Write(m.GetData())
	return storeError(err)
}
