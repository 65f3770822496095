package server_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/server"
	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// guarded is a server with a TLS listener and a Unix socket.
type guarded struct {
	t      *testing.T
	addr   string
	socket string
	admin  confinev1.OperatorServiceClient
}

func startGuarded(t *testing.T) *guarded {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	ca, err := pki.OpenCA(dir+"/ca", 0)
	if err != nil {
		t.Fatal(err)
	}
	config, err := ca.ServerTLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(t.Context(), server.Config{Store: st, CA: ca, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- srv.Serve(ctx, server.Listener{Listener: tcp, TLS: config}, server.Listener{Listener: unix})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	g := &guarded{t: t, addr: tcp.Addr().String(), socket: "unix://" + dir + "/s"}
	g.admin = confinev1.NewOperatorServiceClient(g.dial(g.socket, insecure.NewCredentials()))
	return g
}

func (g *guarded) dial(target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	g.t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	return conn
}

func (g *guarded) token(role string) string {
	g.t.Helper()
	made, err := g.admin.CreateJoinToken(g.t.Context(), &confinev1.CreateJoinTokenRequest{Role: role})
	if err != nil {
		g.t.Fatal(err)
	}
	return made.GetToken()
}

// join enrols a name and returns a connection with its certificate.
func (g *guarded) join(name, role string) (*grpc.ClientConn, string) {
	g.t.Helper()
	dir := g.t.TempDir()
	if err := pki.Enroll(g.t.Context(), g.addr, g.token(role), name, dir); err != nil {
		g.t.Fatal(err)
	}
	config, err := pki.ClientTLS(dir)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.dial(g.addr, credentials.NewTLS(config)), dir
}

// call makes an empty call of a method, unary or not, and returns its code.
func call(t *testing.T, conn *grpc.ClientConn, method string) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return status.Code(err)
	}
	_ = s.SendMsg(&confinev1.ListNodesRequest{}) // any message without fields
	_ = s.CloseSend()
	return status.Code(s.RecvMsg(&confinev1.ListNodesRequest{}))
}

func refused(c codes.Code) bool { return c == codes.Unauthenticated || c == codes.PermissionDenied }

// TestRoles calls every method in every role.
func TestRoles(t *testing.T) {
	g := startGuarded(t)
	agent, _ := g.join("n1", "agent")
	operator, _ := g.join("alice", "operator")
	reader, _ := g.join("bob", "reader")
	nobody := g.dial(g.addr, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})) // only who the client is matters here
	local := g.dial(g.socket, insecure.NewCredentials())
	for method, allowed := range map[string]string{
		confinev1.EnrollService_Enroll_FullMethodName:                    "",
		confinev1.AgentService_Renew_FullMethodName:                      "agent operator reader",
		confinev1.AgentService_Connect_FullMethodName:                    "agent",
		confinev1.AgentService_FindMissing_FullMethodName:                "agent",
		confinev1.AgentService_Upload_FullMethodName:                     "agent",
		confinev1.OperatorService_Profile_FullMethodName:                 "operator",
		confinev1.OperatorService_Stress_FullMethodName:                  "operator",
		confinev1.OperatorService_ListNodes_FullMethodName:               "operator reader",
		confinev1.OperatorService_ListProfiles_FullMethodName:            "operator reader",
		confinev1.OperatorService_GetProfile_FullMethodName:              "operator reader",
		confinev1.OperatorService_Explain_FullMethodName:                 "operator reader",
		confinev1.OperatorService_CreateJoinToken_FullMethodName:         "",
		confinev1.OperatorService_GetServerInfo_FullMethodName:           "agent operator reader",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "agent operator reader",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "agent operator reader",
	} {
		if method == confinev1.EnrollService_Enroll_FullMethodName {
			continue // its token decides: see TestEnroll
		}
		for role, conn := range map[string]*grpc.ClientConn{"agent": agent, "operator": operator, "reader": reader, "nobody": nobody} {
			code := call(t, conn, method)
			if want := !strings.Contains(allowed, role); refused(code) != want {
				t.Errorf("%s as %s: %v, refused should be %v", method, role, code, want)
			}
			if role == "nobody" && code != codes.Unauthenticated {
				t.Errorf("%s without a certificate: %v", method, code)
			}
		}
		if code := call(t, local, method); refused(code) {
			t.Errorf("%s through the Unix socket: %v", method, code)
		}
	}
	for _, conn := range []*grpc.ClientConn{nobody, reader, local} {
		resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", resp, err)
		}
	}
	if code := call(t, operator, "/confine.v1.OperatorService/NoSuchMethod"); code != codes.PermissionDenied && code != codes.Unimplemented {
		t.Errorf("unknown method: %v", code)
	}
}

// TestEveryMethodHasARule fails when a method is added without one.
func TestEveryMethodHasARule(t *testing.T) {
	rules := server.MethodRules()
	for _, desc := range []grpc.ServiceDesc{
		confinev1.EnrollService_ServiceDesc, confinev1.AgentService_ServiceDesc, confinev1.OperatorService_ServiceDesc, healthpb.Health_ServiceDesc,
	} {
		for _, m := range desc.Methods {
			if !rules["/"+desc.ServiceName+"/"+m.MethodName] {
				t.Errorf("%s/%s has no rule", desc.ServiceName, m.MethodName)
			}
		}
		for _, m := range desc.Streams {
			if !rules["/"+desc.ServiceName+"/"+m.StreamName] {
				t.Errorf("%s/%s has no rule", desc.ServiceName, m.StreamName)
			}
		}
	}
}

func TestEnroll(t *testing.T) {
	g := startGuarded(t)
	token := g.token("agent")
	dir := t.TempDir()
	// A request that can't be carried out doesn't cost the token.
	if err := pki.Enroll(t.Context(), g.addr, token, "UPPER", dir); err == nil {
		t.Error("a bad name joined")
	}
	if err := pki.Enroll(t.Context(), g.addr, token, "n1", dir); err != nil {
		t.Fatal(err)
	}
	who, err := pki.ReadClient(dir)
	if err != nil || who.Role != pki.RoleAgent || who.Name != "n1" {
		t.Errorf("joined as %+v, %v", who, err)
	}
	if err := pki.Enroll(t.Context(), g.addr, token, "n2", t.TempDir()); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Errorf("second use of a token: %v", err)
	}
	// A server with another CA is not the one that the token names.
	other := startGuarded(t)
	if err := pki.Enroll(t.Context(), other.addr, g.token("agent"), "n1", t.TempDir()); err == nil || !strings.Contains(err.Error(), "not the one that made the join token") {
		t.Errorf("joining another server: %v", err)
	}
	if _, err := g.admin.CreateJoinToken(t.Context(), &confinev1.CreateJoinTokenRequest{Role: "root"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("token for role root: %v", err)
	}
	list, err := g.admin.ListNodes(t.Context(), &confinev1.ListNodesRequest{})
	if err != nil || len(list.GetNodes()) != 1 || list.GetNodes()[0].GetName() != "n1" || list.GetNodes()[0].GetConnected() {
		t.Errorf("nodes %v, %v", list, err)
	}
}

// TestAgentsSpeakForThemselves has an agent use the name of another.
func TestAgentsSpeakForThemselves(t *testing.T) {
	g := startGuarded(t)
	conn, _ := g.join("n1", "agent")
	a := newAgent(t, conn, "n2", t.TempDir())
	if err := a.connect(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("connected as n2 with the certificate of n1: %v", err)
	}
	a.hello.Node.Name = "n1"
	a.mustConnect()
	list, err := g.admin.ListNodes(t.Context(), &confinev1.ListNodesRequest{})
	if err != nil || len(list.GetNodes()) != 1 || !list.GetNodes()[0].GetConnected() {
		t.Errorf("nodes %v, %v", list, err)
	}
}

func TestRenew(t *testing.T) {
	g := startGuarded(t)
	conn, dir := g.join("alice", "reader")
	before, err := pki.ReadClient(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Renew does nothing before its time; the method is asked here as it
	// would be after.
	if err := pki.Renew(t.Context(), dir, conn); err != nil {
		t.Fatal(err)
	}
	if after, err := pki.ReadClient(dir); err != nil || after != before {
		t.Errorf("renewed before its time: %+v, %v", after, err)
	}
	if time.Until(before.RenewAt) < 24*time.Hour {
		t.Errorf("a new certificate is to be renewed at %v", before.RenewAt)
	}
}
