package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// scriptedAgent speaks the agent's side of the protocol. What a test sets in
// script replaces the ordinary answer.
type scriptedAgent struct {
	t       *testing.T
	client  confinev1.AgentServiceClient
	hello   *confinev1.Hello
	dir     *rootfs.Dir
	observe func() *confinev1.Observation
	// script may take a command; it returns false to leave it to the agent.
	script func(*confinev1.ConnectResponse) bool

	mu      sync.Mutex
	seq     uint64
	pending []*confinev1.ConnectRequest
	stream  grpc.BidiStreamingClient[confinev1.ConnectRequest, confinev1.ConnectResponse]
	cancel  context.CancelFunc
	done    chan error // the end of the current stream
	// log holds the commands in the order in which they came.
	log []*confinev1.ConnectResponse
	// uploads counts the objects that were sent.
	uploads int
}

func newAgent(t *testing.T, conn grpc.ClientConnInterface, name, root string) *scriptedAgent {
	t.Helper()
	dir, err := rootfs.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return &scriptedAgent{
		t: t, client: confinev1.NewAgentServiceClient(conn), dir: dir,
		hello: &confinev1.Hello{Session: "s1", Commands: []string{"start_stress", "describe_monitors"}, Node: &confinev1.Hello_Node{Name: name, Platform: "linux/amd64", Monitors: []string{"ebpf"}}},
	}
}

// connect opens a stream and says again what was not acknowledged.
func (a *scriptedAgent) connect() error {
	ctx, cancel := context.WithCancel(context.Background())
	a.t.Cleanup(cancel)
	s, err := a.client.Connect(ctx)
	if err != nil {
		cancel()
		return err
	}
	if err := s.Send(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Hello{Hello: a.hello}}); err != nil {
		cancel()
		return err
	}
	m, err := s.Recv()
	if err != nil {
		cancel()
		return err
	}
	if m.GetWelcome() == nil {
		a.t.Errorf("the first message is %v, want Welcome", m)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stream, a.cancel, a.done = s, cancel, make(chan error, 1)
	a.acknowledged(m.GetAck())
	for _, m := range a.pending {
		_ = s.Send(m)
	}
	go a.receive(s, a.done)
	return nil
}

func (a *scriptedAgent) mustConnect() *scriptedAgent {
	a.t.Helper()
	if err := a.connect(); err != nil {
		a.t.Fatal(err)
	}
	return a
}

// cut breaks the stream and waits for its end.
func (a *scriptedAgent) cut() {
	a.mu.Lock()
	cancel, done := a.cancel, a.done
	a.mu.Unlock()
	cancel()
	<-done
}

func (a *scriptedAgent) acknowledged(seq uint64) {
	for len(a.pending) > 0 && a.pending[0].GetSeq() <= seq {
		a.pending = a.pending[1:]
	}
}

func (a *scriptedAgent) receive(s grpc.BidiStreamingClient[confinev1.ConnectRequest, confinev1.ConnectResponse], done chan error) {
	for {
		m, err := s.Recv()
		if err != nil {
			done <- err
			return
		}
		a.mu.Lock()
		a.acknowledged(m.GetAck())
		if m.Message != nil {
			a.log = append(a.log, m)
		}
		a.mu.Unlock()
		if m.Message != nil && (a.script == nil || !a.script(m)) {
			go a.answer(m)
		}
	}
}

// say queues and sends a message of a run.
func (a *scriptedAgent) say(run string, m *confinev1.ConnectRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	m.Seq, m.RunId = a.seq, run
	a.pending = append(a.pending, m)
	_ = a.stream.Send(m)
}

func (a *scriptedAgent) answer(m *confinev1.ConnectResponse) {
	run := m.GetRunId()
	switch c := m.Message.(type) {
	case *confinev1.ConnectResponse_StartRun:
		a.progress(run, "image", true)
		a.progress(run, "run", true)
		a.say(run, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Observation{Observation: a.observe()}})
	case *confinev1.ConnectResponse_Lookup:
		reply := &confinev1.LookupReply{RequestId: c.Lookup.GetRequestId()}
		for _, p := range c.Lookup.GetPaths() {
			reply.Entries = append(reply.Entries, a.lookup(p))
		}
		a.say(run, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_LookupReply{LookupReply: reply}})
	case *confinev1.ConnectResponse_Upload:
		a.say(run, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_UploadReply{UploadReply: a.upload(c.Upload)}})
	case *confinev1.ConnectResponse_Prove:
		a.say(run, proof(&confinev1.Proof{Status: "proven", Seconds: 1, Detail: "settled as before"}))
	case *confinev1.ConnectResponse_EndRun:
		a.say(run, runEnded())
	}
}

func proof(p *confinev1.Proof) *confinev1.ConnectRequest {
	return &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Proof{Proof: p}}
}

func runEnded(leftovers ...string) *confinev1.ConnectRequest {
	return &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_RunEnded{RunEnded: &confinev1.RunEnded{Leftovers: leftovers}}}
}

func (a *scriptedAgent) progress(run, stage string, done bool) {
	a.say(run, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Progress{Progress: &confinev1.Progress{Stage: stage, Done: done}}})
}

func (a *scriptedAgent) lookup(p string) *confinev1.LookupEntry {
	ctx := context.Background()
	e := &confinev1.LookupEntry{Path: p}
	found, err := a.dir.Lookup(ctx, p)
	if errors.Is(err, fs.ErrNotExist) {
		return e
	}
	if err != nil {
		e.Error = err.Error()
		return e
	}
	e.Resolved, e.Mode, e.Type = found.Path, uint32(found.Mode.Perm()), "other"
	switch found.Kind {
	case rootfs.KindDir:
		e.Type = "dir"
		e.Names, _ = a.dir.ReadDir(ctx, p)
	case rootfs.KindFile:
		e.Type, e.Size = "file", uint64(found.Size)
		e.Sha256, _ = a.dir.Digest(ctx, p)
	}
	return e
}

// content reads a file of the root.
func (a *scriptedAgent) content(p string) []byte {
	f, err := a.dir.Open(context.Background(), p)
	if err != nil {
		a.t.Errorf("open %s: %v", p, err)
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		a.t.Errorf("read %s: %v", p, err)
	}
	return b
}

// seen describes a file of the root as an observation does.
func (a *scriptedAgent) seen(p, kind string, executed uint32, by ...string) *confinev1.FileSeen {
	b := a.content(p)
	sum := sha256.Sum256(b)
	return &confinev1.FileSeen{
		Path: p, Sha256: hex.EncodeToString(sum[:]), Size: uint64(len(b)), Kind: kind,
		Executed: executed, Mapped: true, By: by,
	}
}

func (a *scriptedAgent) upload(c *confinev1.UploadCommand) *confinev1.UploadReply {
	ctx := context.Background()
	reply := &confinev1.UploadReply{RequestId: c.GetRequestId()}
	missing, err := a.client.FindMissing(ctx, &confinev1.FindMissingRequest{Objects: c.GetObjects()})
	if err != nil {
		a.t.Errorf("FindMissing: %v", err)
		return reply
	}
	for _, m := range missing.GetMissing() {
		for _, o := range c.GetObjects() {
			if o.GetSha256() != m.GetSha256() {
				continue
			}
			if err := a.send(ctx, o, a.content(o.GetPath()), m.GetOffset()); err != nil {
				reply.Failed = append(reply.Failed, &confinev1.Incomplete{Kind: "unreadable-object", Object: o.GetPath(), Detail: err.Error()})
				continue
			}
			reply.Uploaded++
			a.mu.Lock()
			a.uploads++
			a.mu.Unlock()
		}
	}
	return reply
}

// send uploads content in small chunks.
func (a *scriptedAgent) send(ctx context.Context, o *confinev1.ObjectRef, content []byte, offset uint64) error {
	s, err := a.client.Upload(ctx)
	if err != nil {
		return err
	}
	for first := true; first || offset < uint64(len(content)); first = false {
		n := min(uint64(len(content))-offset, 1000)
		m := &confinev1.UploadRequest{Offset: offset, Data: content[offset : offset+n]}
		if first {
			m.Object = o
		}
		if err := s.Send(m); err != nil {
			break // CloseAndRecv says why
		}
		offset += n
	}
	_, err = s.CloseAndRecv()
	return err
}

// commands lists the kinds of commands that came, in order.
func (a *scriptedAgent) commands() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, m := range a.log {
		switch m.Message.(type) {
		case *confinev1.ConnectResponse_StartRun:
			out = append(out, "start")
		case *confinev1.ConnectResponse_Lookup:
			out = append(out, "lookup")
		case *confinev1.ConnectResponse_Upload:
			out = append(out, "upload")
		case *confinev1.ConnectResponse_Prove:
			out = append(out, "prove")
		case *confinev1.ConnectResponse_EndRun:
			out = append(out, "end")
		}
	}
	return out
}
