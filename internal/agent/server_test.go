package agent_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/confinehq/confine/internal/agent"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// patience bounds every wait of a test.
const patience = 90 * time.Second

// fakeServer drives agents as the real server does, without analysing.
type fakeServer struct {
	confinev1.UnimplementedAgentServiceServer
	t *testing.T

	mu      sync.Mutex
	stream  grpc.BidiStreamingServer[confinev1.ConnectRequest, confinev1.ConnectResponse]
	hello   *confinev1.Hello
	last    uint64 // highest seq handled
	streams int
	// mute keeps the server from acknowledging.
	mute bool
	// blobs: digest to content, as far as it has arrived.
	blobs map[string][]byte
	// breakUploads is how many uploads break off after their first chunk.
	breakUploads int
	// offsets holds where uploads began, by digest.
	offsets map[string][]uint64
	// inbox holds what agents said about runs.
	inbox chan *confinev1.ConnectRequest
	// break closes the current stream.
	cut chan struct{}
	// connected gets a value at each Hello.
	connected chan *confinev1.Hello
}

func newFakeServer(t *testing.T) *fakeServer {
	return &fakeServer{
		t: t, blobs: map[string][]byte{}, offsets: map[string][]uint64{}, inbox: make(chan *confinev1.ConnectRequest, 4096),
		cut: make(chan struct{}), connected: make(chan *confinev1.Hello, 16),
	}
}

func (s *fakeServer) Connect(stream grpc.BidiStreamingServer[confinev1.ConnectRequest, confinev1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.stream, s.hello = stream, first.GetHello()
	s.streams++
	cut := s.cut
	last := s.last
	err = stream.Send(&confinev1.ConnectResponse{Ack: last, Message: &confinev1.ConnectResponse_Welcome{Welcome: &confinev1.Welcome{ServerVersion: "test"}}})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.connected <- first.GetHello()
	done := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			s.mu.Lock()
			fresh := m.GetSeq() > s.last
			if fresh {
				s.last = m.GetSeq()
			}
			if !s.mute {
				_ = stream.Send(&confinev1.ConnectResponse{Ack: s.last})
			}
			s.mu.Unlock()
			if fresh {
				s.inbox <- m
			}
		}
	}()
	select {
	case err := <-done:
		return err
	case <-cut:
		return errors.New("cut")
	}
}

// breakStream ends the current stream; the agent comes back.
func (s *fakeServer) breakStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

func (s *fakeServer) FindMissing(_ context.Context, req *confinev1.FindMissingRequest) (*confinev1.FindMissingResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &confinev1.FindMissingResponse{}
	for _, o := range req.GetObjects() {
		if b := s.blobs[o.GetSha256()]; uint64(len(b)) < o.GetSize() {
			out.Missing = append(out.Missing, &confinev1.MissingObject{Sha256: o.GetSha256(), Offset: uint64(len(b))})
		}
	}
	return out, nil
}

func (s *fakeServer) Upload(stream grpc.ClientStreamingServer[confinev1.UploadRequest, confinev1.UploadResponse]) error {
	var object *confinev1.ObjectRef
	var content []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if object == nil {
			object = m.GetObject()
			s.mu.Lock()
			content = append(content, s.blobs[object.GetSha256()]...)
			s.offsets[object.GetSha256()] = append(s.offsets[object.GetSha256()], m.GetOffset())
			s.mu.Unlock()
		}
		if m.GetOffset() != uint64(len(content)) || len(m.GetData()) > 1<<20 {
			return errors.New("wrong chunk")
		}
		content = append(content, m.GetData()...)
		if s.breaks(object, content) {
			return status.Error(codes.Unavailable, "broken off")
		}
	}
	sum := sha256.Sum256(content)
	if hex.EncodeToString(sum[:]) != object.GetSha256() {
		return errors.New("wrong digest")
	}
	s.mu.Lock()
	s.blobs[object.GetSha256()] = content
	s.mu.Unlock()
	return stream.SendAndClose(&confinev1.UploadResponse{Sha256: object.GetSha256(), Size: uint64(len(content))})
}

// breaks keeps what has arrived of an upload that is to break off.
func (s *fakeServer) breaks(object *confinev1.ObjectRef, content []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.breakUploads == 0 || uint64(len(content)) >= object.GetSize() {
		return false
	}
	s.breakUploads--
	s.blobs[object.GetSha256()] = content
	return true
}

// say sends a command.
func (s *fakeServer) say(run string, m *confinev1.ConnectResponse) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	m.RunId, m.Ack = run, s.last
	if err := s.stream.Send(m); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

func (s *fakeServer) start(run string, spec *confinev1.RunSpec) {
	s.t.Helper()
	spec.Namespace = namespace
	s.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_StartRun{StartRun: &confinev1.StartRun{Spec: spec}}})
}

func (s *fakeServer) end(run string) {
	s.t.Helper()
	s.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_EndRun{EndRun: &confinev1.EndRun{Reason: "test"}}})
}

// next returns the next message of a run that isn't a progress message and
// passes want; a RunError that isn't wanted fails the test.
func (s *fakeServer) next(want func(*confinev1.ConnectRequest) bool) *confinev1.ConnectRequest {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-s.inbox:
			if want(m) {
				return m
			}
			if e := m.GetRunError(); e != nil {
				s.t.Fatalf("run error %d at %s: %s", e.GetCode(), e.GetStage(), e.GetMessage())
			}
			if m.GetObservation() != nil {
				s.t.Fatalf("an observation that nobody expects: %v", m.GetObservation())
			}
			if p := m.GetProgress(); p != nil {
				s.t.Logf("%6.2fs %s: %s", p.GetSeconds(), p.GetStage(), p.GetText())
			}
		case <-timeout:
			s.t.Fatal("the agent says nothing")
		}
	}
}

func (s *fakeServer) observation() *confinev1.Observation {
	s.t.Helper()
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetObservation() != nil }).GetObservation()
}

func (s *fakeServer) runError() *confinev1.RunError {
	s.t.Helper()
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetRunError() != nil }).GetRunError()
}

func (s *fakeServer) runEnded() *confinev1.RunEnded {
	s.t.Helper()
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetRunEnded() != nil }).GetRunEnded()
}

// stageReached waits for progress of a stage.
func (s *fakeServer) stageReached(stage string) {
	s.t.Helper()
	s.next(func(m *confinev1.ConnectRequest) bool { return m.GetProgress().GetStage() == stage })
}

// runningAgent is an agent connected to a fakeServer.
type runningAgent struct {
	*fakeServer
	stop func()
}

// startAgent connects an agent with a containerd. stateDir may be "".
func startAgent(t *testing.T, d *daemon, stateDir string) *runningAgent {
	t.Helper()
	return startAgentWith(t, d, stateDir, pluginDir(t))
}

// startAgentWith is startAgent with a folder of monitors.
func startAgentWith(t *testing.T, d *daemon, stateDir, plugins string) *runningAgent {
	t.Helper()
	return startAgentOf(t, d, func(c *config) {
		c.PluginDir = plugins
		if stateDir != "" {
			c.StateDir = stateDir
		}
	})
}

// config is an agent's.
type config = agent.Config

// startAgentOf connects an agent whose configuration is changed.
func startAgentOf(t *testing.T, d *daemon, change func(*config)) *runningAgent {
	t.Helper()
	cfg := config{
		Node: "n1", Containerd: d.socket, Namespace: namespace, PluginDir: pluginDir(t), StateDir: t.TempDir(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	change(&cfg)
	s := newFakeServer(t)
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	confinev1.RegisterAgentServiceServer(server, s)
	go server.Serve(listener)
	conn, err := grpc.NewClient("passthrough:///server",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, conn) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("agent: %v", err)
			}
			conn.Close()
			server.Stop()
		})
	}
	t.Cleanup(stop)
	select {
	case <-s.connected:
	case <-time.After(patience):
		t.Fatal("the agent does not connect")
	}
	return &runningAgent{fakeServer: s, stop: stop}
}

// plugins builds the monitors once for all tests.
var plugins = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "confine-plugins-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"poll": "./testdata/pollmonitor",
		"ebpf": "github.com/confinehq/confine/plugins/monitor-ebpf",
	} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "confine-monitor-"+name), pkg).CombinedOutput()
		if err != nil {
			return dir, errors.New(string(out))
		}
	}
	return dir, nil
})

func pluginDir(t *testing.T) string {
	t.Helper()
	dir, err := plugins()
	if err != nil {
		t.Fatalf("build the monitor: %v", err)
	}
	return dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	removeNamespace()
	if dir, _ := plugins(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}
