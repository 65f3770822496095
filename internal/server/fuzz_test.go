package server

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/seccomp"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// hostile holds messages of an agent that tries things.
func hostile() []*confinev1.ConnectRequest {
	digest := "0000000000000000000000000000000000000000000000000000000000000000"
	observation := &confinev1.Observation{
		Image: &confinev1.ImageInfo{Image: "x", Platform: "linux/amd64", Args: []string{"app"}, Env: []string{"PATH=:/bin"}, Healthcheck: []string{"./check"}},
		Run: &confinev1.Run{SettledBy: "\x1b[2J", Lost: 3, Seconds: -1, ExitCode: proto.Int32(1), Output: []string{"a"}, Recorded: []*confinev1.Recorded{
			{Path: "/bin/app", Syscalls: []string{"read", "nonsense"}, Compat: []string{"socketcall"}},
		}},
		Files: []*confinev1.FileSeen{
			{Path: "/bin/app", Sha256: digest, Kind: "elf", Executed: 1, Size: 1 << 40},
			{Path: "/lib/a", Sha256: digest, Kind: "elf", Mapped: true, By: []string{"/bin/app"}},
			{Path: "/../x", Sha256: "x"}, {Path: "/gone", Error: "no", Executed: 1},
		},
		Runtime: &confinev1.Runtime{Name: "runc", Floor: []string{"execve", "\n"}},
		Notes:   []*confinev1.Incomplete{{Kind: "A b", Object: "\x00"}},
	}
	return []*confinev1.ConnectRequest{
		{RunId: "1", Message: &confinev1.ConnectRequest_Observation{Observation: observation}},
		{RunId: "1", Message: &confinev1.ConnectRequest_Proof{Proof: &confinev1.Proof{Status: "proven", Denied: []*confinev1.Denied{{Name: "\x1b", Args: make([]uint64, 9)}}}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_Progress{Progress: &confinev1.Progress{Stage: "run", Text: "\r"}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_UploadReply{UploadReply: &confinev1.UploadReply{RequestId: "q1", Failed: []*confinev1.Incomplete{{Kind: "x"}}}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_StressRound{StressRound: &confinev1.StressRound{Index: 1, Executed: []string{"/b", "/a"}, Lost: ^uint32(0), Storm: &confinev1.StormCheck{}}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_StressDone{StressDone: &confinev1.StressDone{Image: "x", Limits: []string{"\x07"}}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_RunError{RunError: &confinev1.RunError{Message: "\x00", Code: ^uint32(0)}}},
		{RunId: "1", Seq: 1, Message: &confinev1.ConnectRequest_RunEnded{RunEnded: &confinev1.RunEnded{Leftovers: []string{"\x1b"}}}},
		{RunId: "1", Message: &confinev1.ConnectRequest_MonitorsReply{MonitorsReply: &confinev1.MonitorsReply{RequestId: "q", Monitors: []*confinev1.MonitorStatus{{Name: "m"}}}}},
	}
}

// FuzzAgent hands messages of a node to a run, and makes of what they say a
// result that can be kept, printed and read.
func FuzzAgent(f *testing.F) {
	for _, m := range hostile() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	root, err := rootfs.NewDir(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &confinev1.ConnectRequest{}
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		r, n, l := begun(t)
		m.RunId = r.id
		r.agents.handle(n, l, m)
		result := made(t, r, root)
		if result == nil {
			return
		}
		if _, err := proto.Marshal(result); err != nil {
			t.Errorf("the result can't be kept: %v", err)
		}
		if _, err := protojson.Marshal(result); err != nil {
			t.Errorf("the result can't be printed: %v", err)
		}
	})
}

// begun is a run of a node that is connected.
func begun(t *testing.T) (*run, *node, *link) {
	s := &Server{agents: newAgents(time.Hour, slog.New(slog.NewTextHandler(io.Discard, nil)))}
	n, l, err := s.agents.attach(&confinev1.Hello{Session: "s", Node: &confinev1.Hello_Node{Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRun(context.Background(), s, &confinev1.RunSpec{Image: "x", Load: []string{"/lib/a"}})
	if err != nil {
		t.Fatal(err)
	}
	r.rounds, r.stressed = make(chan *confinev1.StressRound, 1), make(chan *confinev1.StressDone, 1)
	if !s.agents.begin("n1", r) {
		t.Fatal("the node isn't connected")
	}
	return r, n, l
}

// made takes what a message brought through the stages after it.
func made(t *testing.T, r *run, root rootfs.Root) proto.Message {
	select {
	case p := <-r.proof:
		return checkProof(p)
	case round := <-r.rounds:
		if checkRound(round) != nil {
			return nil
		}
		return stressReport(&confinev1.StressSpec{Count: 2}, &confinev1.StressDone{}, map[uint32]*confinev1.StressRound{1: round})
	case done := <-r.stressed:
		return stressReport(&confinev1.StressSpec{Count: 1}, done, nil)
	case said := <-r.observation:
		seen, err := checkObservation(said)
		if err != nil {
			return nil
		}
		_ = seen.paths()
		programs, err := seen.programs(context.Background(), root, r.spec)
		if err == nil && len(programs) == 0 {
			t.Error("no program, and no error")
		}
		found := &analysis.Result{Syscalls: []analysis.Syscall{{Name: "read"}}}
		set := newCallSet(seen, found)
		profile, err := set.profile()
		if err != nil {
			t.Fatalf("no profile: %v", err)
		}
		data, err := profile.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := seccomp.Read(data); err != nil {
			t.Errorf("the profile can't be read: %v\n%s", err, data)
		}
		return assemble(r, seen, found, set, profile, &confinev1.Proof{}, nil)
	default:
		return nil
	}
}
