package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// tokenLife is how long a join token can be used unless told otherwise.
	tokenLife = time.Hour
	// maxTokenLife bounds what can be told.
	maxTokenLife = 30 * 24 * time.Hour
)

var errNoCA = status.Error(codes.FailedPrecondition, "this server has no certificate authority: nobody can join it")

// CreateJoinToken implements confine.v1.OperatorService.
func (s *Server) CreateJoinToken(ctx context.Context, req *confinev1.CreateJoinTokenRequest) (*confinev1.CreateJoinTokenResponse, error) {
	if s.cfg.CA == nil {
		return nil, errNoCA
	}
	role, err := pki.ParseRole(req.GetRole())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	life := tokenLife
	if req.GetTtl() != nil {
		life = req.GetTtl().AsDuration()
	}
	if life <= 0 || life > maxTokenLife {
		return nil, status.Errorf(codes.InvalidArgument, "a token can live for at most %v", maxTokenLife)
	}
	token, err := pki.NewToken(s.cfg.CA.Pin())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	expires := time.Now().Add(life)
	if err := s.store.PutToken(ctx, token.Hash(), store.Token{Role: string(role), Expires: expires}); err != nil {
		return nil, storeError(err)
	}
	s.log.Info("join token made", "role", role, "expires", expires)
	return &confinev1.CreateJoinTokenResponse{Token: token.String(), Expires: timestamppb.New(expires)}, nil
}

// Enroll implements confine.v1.EnrollService.
func (s *Server) Enroll(ctx context.Context, req *confinev1.EnrollRequest) (*confinev1.EnrollResponse, error) {
	if s.cfg.CA == nil {
		return nil, errNoCA
	}
	token, err := pki.ParseToken(req.GetToken())
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if err := pki.CheckName(req.GetName()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// A request that can't be signed must not cost the token: the role only
	// shows once it's spent, and any will do to check the rest.
	if _, err := s.cfg.CA.Sign(req.GetCsr(), pki.Identity{Name: req.GetName(), Role: pki.RoleReader}); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spent, err := s.store.UseToken(ctx, token.Hash(), req.GetName(), time.Now())
	switch {
	case errors.Is(err, store.ErrTokenUnknown), errors.Is(err, store.ErrTokenUsed), errors.Is(err, store.ErrTokenExpired):
		s.log.Warn("join refused", "name", req.GetName(), "error", err)
		return nil, status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return nil, storeError(err)
	}
	id := pki.Identity{Name: req.GetName(), Role: pki.Role(spent.Role)}
	cert, err := s.cfg.CA.Sign(req.GetCsr(), id)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if id.Role == pki.RoleAgent {
		if err := s.store.PutNode(ctx, &confinev1.Node{Name: id.Name, LastSeen: timestamppb.Now()}); err != nil {
			return nil, storeError(err)
		}
	}
	s.log.Info("joined", "name", id.Name, "role", id.Role)
	return &confinev1.EnrollResponse{Certificate: cert, Ca: s.cfg.CA.Certificate()}, nil
}

// Renew implements confine.v1.AgentService: the same name and role with a new
// key and a new end.
func (s *Server) Renew(ctx context.Context, req *confinev1.RenewRequest) (*confinev1.RenewResponse, error) {
	if s.cfg.CA == nil {
		return nil, errNoCA
	}
	who := callerOf(ctx)
	if who.local {
		return nil, status.Error(codes.FailedPrecondition, "who comes through the Unix socket has no certificate to renew")
	}
	cert, err := s.cfg.CA.Sign(req.GetCsr(), who.Identity)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &confinev1.RenewResponse{Certificate: cert, Ca: s.cfg.CA.Certificate()}, nil
}
