package cli_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/cli"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"confinectl": func() { os.Exit(cli.Main(context.Background(), os.Args[1:], cli.System())) },
	})
}

// TestScripts runs the command as a user does. A server that knows the results
// of testdata listens on the socket that CONFINE_SERVER names.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			socket := filepath.Join(env.WorkDir, "s.sock")
			env.Setenv("CONFINE_SERVER", "unix://"+socket)
			env.Setenv("HOME", env.WorkDir)
			return serve(env, socket)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}

// code N COMMAND... runs a command and wants this exit code.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = map[string]string{"exit status 1": "1", "exit status 2": "2", "exit status 3": "3"}[err.Error()]
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func serve(env *testscript.Env, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	confinev1.RegisterOperatorServiceServer(srv, &fakeServer{})
	go func() { _ = srv.Serve(l) }()
	env.Defer(srv.Stop)
	return nil
}

// fakeServer has one complete result, redis, and others that lack something.
type fakeServer struct {
	confinev1.UnimplementedOperatorServiceServer
}

func result(image string) (*confinev1.Result, error) {
	data, err := os.ReadFile("testdata/redis.json")
	if err != nil {
		return nil, err
	}
	r := new(confinev1.Result)
	if err := protojson.Unmarshal(data, r); err != nil {
		return nil, err
	}
	switch image {
	case "redis", "r1":
	case "incomplete":
		r.Incomplete = []*confinev1.Incomplete{{Kind: "lost-events", Detail: "7 events were lost"}}
	case "flooded":
		for i := range 20_000 {
			r.Incomplete = append(r.Incomplete, &confinev1.Incomplete{Kind: "flood", Object: fmt.Sprintf("/f%d", i), Detail: "is not there"})
		}
		r.Incomplete = append(r.Incomplete, &confinev1.Incomplete{Kind: "lost-events", Detail: "7 events were lost"})
	case "denied":
		r.Proof = &confinev1.Proof{Status: "denied", Denied: []*confinev1.Denied{{Name: "ptrace", Nr: 101, Process: "/bin/x", Caller: "/bin/x+0x10", Count: 2, Args: []uint64{16, 7}, Text: "ptrace(PTRACE_ATTACH=0x10, 7, NULL, NULL)"}}}
	case "unproven":
		r.Proof = &confinev1.Proof{Status: "skipped", Detail: "not asked for"}
	case "broken":
		return nil, status.Error(codes.FailedPrecondition, "node n1, stage run: the container exited with status 1")
	case "gone":
		return nil, status.Error(codes.Aborted, "node n1 was lost")
	default:
		return nil, status.Errorf(codes.NotFound, "no result is stored for %q", image)
	}
	return r, nil
}

func (s *fakeServer) Profile(req *confinev1.ProfileRequest, stream grpc.ServerStreamingServer[confinev1.ProfileResponse]) error {
	if n := req.GetNode(); n != "" && n != "n1" {
		return status.Errorf(codes.NotFound, "node %q is unknown; connected: n1", n)
	}
	r, err := result(req.GetSpec().GetImage())
	if err != nil {
		return err
	}
	if err := stream.Send(&confinev1.ProfileResponse{Event: &confinev1.ProfileResponse_Progress{Progress: &confinev1.Progress{Stage: "image", Done: true, Text: "resolved"}}}); err != nil {
		return err
	}
	return stream.Send(&confinev1.ProfileResponse{Event: &confinev1.ProfileResponse_Result{Result: r}})
}

// Stress has a report of four rounds for each of several images.
func (s *fakeServer) Stress(req *confinev1.StressRequest, stream grpc.ServerStreamingServer[confinev1.StressResponse]) error {
	spec := req.GetSpec()
	r := &confinev1.StressReport{
		Image: "docker.io/library/" + spec.GetImage() + ":latest", Node: "n1", Monitor: "ebpf", Count: 4, Parallel: max(1, spec.GetParallel()), Seconds: 4.5,
		Executed: []string{"/bin/a", "/bin/b"}, Mapped: []string{"/lib/c.so"}, Events: 40, Passed: spec.GetImage() == "same",
	}
	for i := range uint32(4) {
		r.Rounds = append(r.Rounds, &confinev1.StressRound{Index: i + 1, Binaries: 2, Mappings: 1, Events: 10, SettledBy: "port 80 answered"})
	}
	last := r.GetRounds()[3]
	switch spec.GetImage() {
	case "same":
	case "differing":
		r.Differing = 1
		last.Binaries, last.Missing, last.Extra = 2, []string{"/bin/b"}, []string{"/tmp/x"}
	case "losing":
		r.Lost, r.Storm, r.StormRate = 3, true, 100
		last.Lost, last.Losses = 3, []*confinev1.Loss{{Reason: "the ring buffer was full", Count: 3}}
		last.Storm = &confinev1.StormCheck{Made: 100, Seen: 98, Missed: 2, Rate: 100, NodeMade: 100, Examples: []string{"missed 2 of /.confine-storm/x"}}
		r.Storms = last.GetStorm()
	case "guessing": // as with a monitor that sees no mappings and can miss executions
		r.Passed, r.MissesUncounted, r.Mapped = true, true, nil
		for _, round := range r.GetRounds() {
			round.Mappings = 0
		}
	case "toomuch":
		return status.Error(codes.InvalidArgument, "100 containers at once are more than the limit of 32")
	case "failing":
		r.Failed, r.Mixed = 1, 1
		r.GetRounds()[2].Foreign = []string{"/.confine-storm/confine-r-c1-n0"}
		r.Rounds[3] = &confinev1.StressRound{Index: 4, Error: "the container ended"}
	default:
		return status.Error(codes.FailedPrecondition, "monitor sysdig: sysdig has no driver for this kernel")
	}
	if err := stream.Send(&confinev1.StressResponse{Event: &confinev1.StressResponse_Progress{Progress: &confinev1.Progress{Stage: "rounds", Done: true, Text: "4 done, 0 failed"}}}); err != nil {
		return err
	}
	return stream.Send(&confinev1.StressResponse{Event: &confinev1.StressResponse_Report{Report: r}})
}

func (s *fakeServer) GetProfile(_ context.Context, req *confinev1.GetProfileRequest) (*confinev1.GetProfileResponse, error) {
	r, err := result(req.GetName())
	return &confinev1.GetProfileResponse{Result: r}, err
}

// Explain knows two places of clone, and code of ptrace that nothing reaches.
func (s *fakeServer) Explain(_ context.Context, req *confinev1.ExplainRequest) (*confinev1.ExplainResponse, error) {
	r, err := result(req.GetName())
	if err != nil {
		return nil, err
	}
	out := &confinev1.ExplainResponse{Id: r.GetId(), Image: r.GetImage(), Platform: r.GetPlatform(), Node: r.GetNode(), Explained: true}
	for _, c := range r.GetSyscalls() {
		if c.GetName() == req.GetCall() {
			out.Syscall = c
		}
	}
	switch req.GetCall() {
	case "clone":
		chains := []*confinev1.Chain{{
			Frames: out.GetSyscall().GetReasons()[0].GetChain(),
			Place:  &confinev1.Place{Call: "clone", Object: "/lib/libc.so.6", Address: 12300, Site: &confinev1.Site{Object: "/lib/libc.so.6", Address: 12300}},
		}, {
			Frames: []*confinev1.Frame{
				{Kind: "program", Object: "/usr/bin/redis-server", Edge: "program"},
				{Kind: "text", Symbol: "libx.so", Edge: "names"},
				{Kind: "function", Object: "/lib/libx.so", Symbol: "_ZN3foo3barEi", Address: 256, Size: 16, Edge: "init"},
				{Kind: "function", Object: "/lib/libc.so.6", Symbol: "syscall", Address: 512, Size: 16, Edge: "import"},
			},
			Place: &confinev1.Place{Call: "clone", Object: "/lib/libx.so", Address: 260, Site: &confinev1.Site{Object: "/lib/libc.so.6", Address: 520, Wrappers: 1}},
		}}
		n := min(len(chains), int(req.GetLimit()))
		out.Chains, out.Left = chains[:n], uint32(len(chains)-n)
	case "ptrace":
		out.Absent = []*confinev1.AbsentPlace{{Call: "ptrace", Object: "/lib/libc.so.6", Symbol: "ptrace", Function: 4096, Address: 4100, Exports: []string{"ptrace"}}}
	case "ptarce", "nosuchcall":
		return nil, status.Errorf(codes.InvalidArgument, `linux/amd64 has no system call %q (did you mean "ptrace"?)`, req.GetCall())
	}
	return out, nil
}

func (s *fakeServer) ListNodes(context.Context, *confinev1.ListNodesRequest) (*confinev1.ListNodesResponse, error) {
	return &confinev1.ListNodesResponse{Nodes: []*confinev1.Node{
		{Name: "n1", Connected: true, LastSeen: timestamppb.Now(), Platform: "linux/amd64", Kernel: "6.1.0-13-amd64", Monitors: []string{"ebpf"}},
		{Name: "n2", LastSeen: timestamppb.New(time.Now().Add(-72 * time.Hour))},
	}}, nil
}

// DescribeMonitors knows a node with monitors of all kinds, one whose agent is
// too old, and one that is away.
func (s *fakeServer) DescribeMonitors(_ context.Context, req *confinev1.DescribeMonitorsRequest) (*confinev1.DescribeMonitorsResponse, error) {
	bounds := &confinev1.MonitorBounds{Memory: 1 << 30, Files: 4096, Processes: 256, CpuWeight: 400}
	all := map[string]*confinev1.NodeMonitors{
		"n1": {Node: "n1", Connected: true, Monitors: []*confinev1.MonitorStatus{
			{Name: "bad", Path: "/opt/bad", Problem: "it hung: no handshake within 20s, and was killed", Pinned: true, Bounds: &confinev1.MonitorBounds{Memory: 1_000_000, Files: 10, Processes: 5, CpuWeight: 50}, Options: []string{"how"}},
			{
				Name: "ebpf", Path: "/p/confine-monitor-ebpf", Default: true, Works: true, Version: "1.2 (abc)", Bounds: bounds, Contract: 2, Sha256: "0123",
				Sees:  &confinev1.Capabilities{Exec: true, ExecMapping: true, RecordedSyscalls: true, DeniedSyscalls: true},
				Needs: []string{"CAP_BPF", "CAP_PERFMON"}, Gets: []string{"CAP_BPF"}, Mechanisms: []string{"ring buffer"},
			},
			{Name: "sysdig", Path: "/p/confine-monitor-sysdig", Works: true, Version: "1.2", Bounds: bounds, Sha256: "4567", Sees: &confinev1.Capabilities{Replay: true}, Limits: []string{"it can't watch what runs: no driver"}},
		}},
		"n2": {Node: "n2", Connected: true, Problem: "the agent on node n2 is too old for this", Installed: []string{"ebpf"}},
		"n3": {Node: "n3", Problem: "node n3 is not connected", Installed: []string{"ebpf"}},
	}
	if req.GetNode() == "" {
		return &confinev1.DescribeMonitorsResponse{Nodes: []*confinev1.NodeMonitors{all["n1"], all["n2"], all["n3"]}}, nil
	}
	if all[req.GetNode()] == nil {
		return nil, status.Errorf(codes.NotFound, "node %q is unknown; connected: n1, n2", req.GetNode())
	}
	return &confinev1.DescribeMonitorsResponse{Nodes: []*confinev1.NodeMonitors{all[req.GetNode()]}}, nil
}

func (s *fakeServer) ListProfiles(_ context.Context, req *confinev1.ListProfilesRequest) (*confinev1.ListProfilesResponse, error) {
	if req.GetImage() == "none" {
		return &confinev1.ListProfilesResponse{}, nil
	}
	return &confinev1.ListProfilesResponse{Profiles: []*confinev1.ProfileSummary{{
		Id: "r1", Image: "docker.io/library/redis:latest", Digest: "sha256:0123456789abcdef", Node: "n1", Syscalls: 4, Proof: "proven", Created: timestamppb.Now(),
	}}}, nil
}

func (s *fakeServer) CreateJoinToken(_ context.Context, req *confinev1.CreateJoinTokenRequest) (*confinev1.CreateJoinTokenResponse, error) {
	return &confinev1.CreateJoinTokenResponse{Token: "confine1." + req.GetRole(), Expires: timestamppb.New(time.Unix(1_800_000_000, 0))}, nil
}

func (s *fakeServer) GetServerInfo(context.Context, *confinev1.GetServerInfoRequest) (*confinev1.GetServerInfoResponse, error) {
	return &confinev1.GetServerInfoResponse{Version: "1.2.3"}, nil
}
