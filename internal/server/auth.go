package server

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/pki"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// caller is who makes a call.
type caller struct {
	pki.Identity
	// local is true for who comes through a listener without TLS: the
	// permissions of the socket's folder have decided.
	local bool
}

type callerKey struct{}

// callerOf returns who makes the call; the gate has put it there.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// access says who may call a method, besides the local administrator.
type access struct {
	anyone bool
	roles  []pki.Role
}

// methodAccess is the rule for each method, key: its full name. What isn't
// here is refused.
func methodAccess() map[string]access {
	var (
		anyone    = access{anyone: true}
		localOnly = access{}
		agents    = access{roles: []pki.Role{pki.RoleAgent}}
		operators = access{roles: []pki.Role{pki.RoleOperator}}
		readers   = access{roles: []pki.Role{pki.RoleOperator, pki.RoleReader}}
		members   = access{roles: []pki.Role{pki.RoleAgent, pki.RoleOperator, pki.RoleReader}}
	)
	return map[string]access{
		// The join token is checked by the method.
		confinev1.EnrollService_Enroll_FullMethodName: anyone,

		confinev1.AgentService_Renew_FullMethodName:        members,
		confinev1.AgentService_Connect_FullMethodName:      agents,
		confinev1.AgentService_FindMissing_FullMethodName:  agents,
		confinev1.AgentService_Upload_FullMethodName:       agents,
		confinev1.AgentService_FetchCapture_FullMethodName: agents,

		confinev1.OperatorService_Profile_FullMethodName:          operators,
		confinev1.OperatorService_Stress_FullMethodName:           operators,
		confinev1.OperatorService_UploadCapture_FullMethodName:    operators,
		confinev1.OperatorService_ListNodes_FullMethodName:        readers,
		confinev1.OperatorService_DescribeMonitors_FullMethodName: readers,
		confinev1.OperatorService_ListProfiles_FullMethodName:     readers,
		confinev1.OperatorService_GetProfile_FullMethodName:       readers,
		confinev1.OperatorService_Explain_FullMethodName:          readers,
		confinev1.OperatorService_CreateJoinToken_FullMethodName:  localOnly,
		confinev1.OperatorService_GetServerInfo_FullMethodName:    members,

		healthpb.Health_Check_FullMethodName: anyone,
		healthpb.Health_Watch_FullMethodName: anyone,
		healthpb.Health_List_FullMethodName:  anyone,

		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      members,
		reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: members,
	}
}

// gate checks every call that comes through one listener.
type gate struct {
	local  bool
	access map[string]access
}

// admit returns a context that knows the caller, or the refusal.
func (g gate) admit(ctx context.Context, method string) (context.Context, error) {
	rule, ok := g.access[method]
	if !ok {
		return nil, status.Errorf(codes.PermissionDenied, "nobody may call %s", method)
	}
	if g.local {
		return context.WithValue(ctx, callerKey{}, caller{local: true}), nil
	}
	id, err := peerIdentity(ctx)
	if rule.anyone {
		return context.WithValue(ctx, callerKey{}, caller{Identity: id}), nil
	}
	if err != nil {
		return nil, err
	}
	if len(rule.roles) == 0 {
		return nil, status.Errorf(codes.PermissionDenied, "%s is for the local administrator, through the server's Unix socket", method)
	}
	if !slices.Contains(rule.roles, id.Role) {
		return nil, status.Errorf(codes.PermissionDenied, "%s has role %s, which may not call %s", id.Name, id.Role, method)
	}
	return context.WithValue(ctx, callerKey{}, caller{Identity: id}), nil
}

// peerIdentity reads the verified client certificate of a call.
func peerIdentity(ctx context.Context) (pki.Identity, error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return pki.Identity{}, status.Error(codes.Unauthenticated, "the caller is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return pki.Identity{}, status.Error(codes.Unauthenticated, "this call needs a client certificate")
	}
	id, err := pki.FromCertificate(info.State.VerifiedChains[0][0])
	if err != nil {
		return pki.Identity{}, status.Error(codes.Unauthenticated, err.Error())
	}
	return id, nil
}

func (g gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (g gate) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, admitted{stream, ctx})
}

// admitted is a stream whose context knows the caller.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (a admitted) Context() context.Context { return a.ctx }
