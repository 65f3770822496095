package server

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// mistaken panics in each of its handlers.
type mistaken struct {
	healthpb.UnimplementedHealthServer
}

func (mistaken) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	panic("mistake of Check")
}

func (mistaken) Watch(*healthpb.HealthCheckRequest, healthpb.Health_WatchServer) error {
	panic("mistake of Watch")
}

// A handler that panics fails its call, not the server.
func TestHandlerPanics(t *testing.T) {
	var log bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&log, nil))}
	srv := grpc.NewServer(s.interceptors(gate{local: true, access: methodAccess()})...)
	healthpb.RegisterHealthServer(srv, mistaken{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := healthpb.NewHealthClient(conn)
	_, unary := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
	stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, streamed := stream.Recv()
	for _, err := range []error{unary, streamed} {
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "mistake of") {
			t.Errorf("the call ended with %v, want Internal without what only the log should say", err)
		}
	}
	conn.Close()
	srv.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"mistake of Check", "mistake of Watch", "panic_test.go", "/grpc.health.v1.Health/Watch"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}
