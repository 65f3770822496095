package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Keys of commands that wait for an answer; those of lookups and uploads are
// their request ids.
const (
	keyStart = "start"
	keyProve = "prove"
	keyEnd   = "end"
)

// answers names the command that a message of the agent answers, or shows to
// have arrived; "" for none.
func answers(m *confinev1.ConnectRequest) string {
	switch v := m.Message.(type) {
	case *confinev1.ConnectRequest_LookupReply:
		return v.LookupReply.GetRequestId()
	case *confinev1.ConnectRequest_UploadReply:
		return v.UploadReply.GetRequestId()
	case *confinev1.ConnectRequest_MonitorsReply:
		return v.MonitorsReply.GetRequestId()
	case *confinev1.ConnectRequest_Proof:
		return keyProve
	case *confinev1.ConnectRequest_Progress:
		if v.Progress.GetStage() == stageProve {
			return keyProve
		}
	case *confinev1.ConnectRequest_RunEnded:
		return keyEnd
	}
	return ""
}

// run is one run, as the server sees it, from StartRun to RunEnded.
type run struct {
	id     string
	spec   *confinev1.RunSpec
	agents *agents
	store  *store.Store
	began  time.Time
	// ctx ends when the run can't go on; its cause is a status.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// node and pending (commands without an answer, by key) are guarded by
	// agents.mu.
	node    *node
	pending map[string]*confinev1.ConnectResponse

	observation chan *confinev1.Observation // one
	proof       chan *confinev1.Proof       // one
	news        chan *confinev1.Progress    // what an operator watches
	ended       chan struct{}               // the node has removed the run
	fetches     singleflight.Group          // by digest
	// rounds and stressed are of a stress test alone.
	rounds   chan *confinev1.StressRound // as many as were asked for
	stressed chan *confinev1.StressDone  // one

	mu        sync.Mutex
	replies   map[string]chan *confinev1.ConnectRequest // by request id
	wants     map[string]*want                          // by hex digest
	unpin     []func()
	leftovers []string
	clock     stageClock
	requests  int
	// uploaded counts objects that the node sent.
	uploaded uint32
	// explained says why the calls are allowed; set by the goroutine that
	// carries the run out.
	explained *confinev1.Explanation
}

func newRun(ctx context.Context, s *Server, spec *confinev1.RunSpec) (*run, error) {
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("name run: %w", err)
	}
	r := &run{
		id: hex.EncodeToString(id[:]), spec: spec, agents: s.agents, store: s.store, began: time.Now(),
		pending:     map[string]*confinev1.ConnectResponse{},
		observation: make(chan *confinev1.Observation, 1), proof: make(chan *confinev1.Proof, 1),
		news: make(chan *confinev1.Progress, 256), ended: make(chan struct{}),
		replies: map[string]chan *confinev1.ConnectRequest{}, wants: map[string]*want{},
		clock: newStageClock(),
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r, nil
}

// fail ends the run early.
func (r *run) fail(err error) { r.cancel(err) }

// cause is why the run was ended early.
func (r *run) cause() error {
	err := context.Cause(r.ctx)
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "the run was cancelled")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return status.Error(codes.DeadlineExceeded, "the call's deadline has passed")
	}
	return err
}

// over says that the node holds nothing of the run any more.
func (r *run) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ended:
	default:
		close(r.ended)
	}
}

// pendingKeys lists commands in the order in which they make sense.
func (r *run) pendingKeys() []string {
	rank := func(key string) int { return slices.Index([]string{keyStart, "", keyProve, keyEnd}, key) }
	keys := make([]string, 0, len(r.pending))
	for k := range r.pending {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		ra, rb := rank(a), rank(b)
		if ra < 0 {
			ra = rank("")
		}
		if rb < 0 {
			rb = rank("")
		}
		return ra - rb
	})
	return keys
}

// deliver takes a message of the agent. It never blocks: agents.mu is held.
func (r *run) deliver(m *confinev1.ConnectRequest) {
	switch v := m.Message.(type) {
	case *confinev1.ConnectRequest_Progress:
		r.say(v.Progress)
	case *confinev1.ConnectRequest_Observation:
		offer(r.observation, v.Observation)
	case *confinev1.ConnectRequest_Proof:
		offer(r.proof, v.Proof)
	case *confinev1.ConnectRequest_LookupReply:
		r.reply(v.LookupReply.GetRequestId(), m)
	case *confinev1.ConnectRequest_UploadReply:
		r.reply(v.UploadReply.GetRequestId(), m)
	case *confinev1.ConnectRequest_MonitorsReply:
		r.reply(v.MonitorsReply.GetRequestId(), m)
	case *confinev1.ConnectRequest_StressRound:
		offer(r.rounds, v.StressRound)
	case *confinev1.ConnectRequest_StressDone:
		offer(r.stressed, v.StressDone)
	case *confinev1.ConnectRequest_RunError:
		r.fail(runError(r.node.name, v.RunError))
	case *confinev1.ConnectRequest_RunEnded:
		r.mu.Lock()
		r.leftovers = cleanAll(v.RunEnded.GetLeftovers(), maxText, 100)
		r.mu.Unlock()
		r.over()
		r.fail(status.Errorf(codes.Aborted, "node %s ended the run; look at the agent's log there", r.node.name))
	}
}

// offer puts v into a channel that has room for one; a second is not wanted.
func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

func (r *run) reply(id string, m *confinev1.ConnectRequest) {
	r.mu.Lock()
	c := r.replies[id]
	delete(r.replies, id)
	r.mu.Unlock()
	if c != nil {
		c <- m // it has room for one, and an id is used once
	}
}

// ask sends a command with a request id and waits for its answer.
func (r *run) ask(ctx context.Context, command func(id string) *confinev1.ConnectResponse) (*confinev1.ConnectRequest, error) {
	c := make(chan *confinev1.ConnectRequest, 1)
	r.mu.Lock()
	r.requests++
	id := fmt.Sprint("q", r.requests)
	r.replies[id] = c
	r.mu.Unlock()
	r.agents.command(r, id, command(id))
	return wait(ctx, r, c)
}

// wait waits for one value, the end of the run, or that of ctx.
func wait[T any](ctx context.Context, r *run, c <-chan T) (v T, err error) {
	select {
	case v = <-c:
		return v, nil
	case <-r.ctx.Done():
		return v, r.cause()
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// Lookup implements remote.Source.
func (r *run) Lookup(ctx context.Context, paths []string) ([]*confinev1.LookupEntry, error) {
	m, err := r.ask(ctx, func(id string) *confinev1.ConnectResponse {
		return &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Lookup{
			Lookup: &confinev1.LookupCommand{RequestId: id, Paths: paths},
		}}
	})
	if err != nil {
		return nil, err
	}
	if m.GetLookupReply() == nil {
		return nil, fmt.Errorf("node %s gave a wrong kind of answer", r.nodeName())
	}
	return m.GetLookupReply().GetEntries(), nil
}

// Fetch implements remote.Source.
func (r *run) Fetch(ctx context.Context, ref *confinev1.ObjectRef) error {
	// Several may need the same object at once. Who waits is in the same run,
	// so that its end is everybody's.
	_, err, _ := r.fetches.Do(ref.GetSha256(), func() (any, error) {
		failed, err := r.upload(ctx, []*confinev1.ObjectRef{ref})
		if err == nil && len(failed) > 0 {
			err = errors.New(failed[0].GetDetail())
		}
		return nil, err
	})
	return err
}

// upload has the node send objects, and returns those that it could not.
func (r *run) upload(ctx context.Context, refs []*confinev1.ObjectRef) ([]*confinev1.Incomplete, error) {
	var ok []*confinev1.ObjectRef
	var failed []*confinev1.Incomplete
	for _, ref := range refs {
		if err := r.addWant(ref); err != nil {
			failed = append(failed, &confinev1.Incomplete{Kind: "unreadable-object", Object: ref.GetPath(), Detail: err.Error()})
			continue
		}
		ok = append(ok, ref)
	}
	if len(ok) == 0 {
		return failed, nil
	}
	m, err := r.ask(ctx, func(id string) *confinev1.ConnectResponse {
		return &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Upload{
			Upload: &confinev1.UploadCommand{RequestId: id, Objects: ok},
		}}
	})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.uploaded += m.GetUploadReply().GetUploaded()
	r.mu.Unlock()
	return append(failed, m.GetUploadReply().GetFailed()...), nil
}

// Object implements remote.Source.
func (r *run) Object(digest string) (rootfs.File, error) {
	d, err := store.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	f, err := r.store.Objects.Open(d)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (r *run) nodeName() string { return r.node.name }

// want is one object that the server asked a node for.
type want struct {
	digest store.Digest
	size   uint64 // bytes, as the node announced

	mu sync.Mutex
	// fresh is true while the object has to be sent although it is there.
	fresh bool
}

func (w *want) isFresh() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh
}

func (w *want) got() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh = false
}

// addWant expects an upload, and keeps the object until the run is over.
func (r *run) addWant(ref *confinev1.ObjectRef) error {
	d, err := store.ParseDigest(ref.GetSha256())
	if err != nil {
		return err
	}
	if limit := r.store.Objects.Limit(); ref.GetSize() > uint64(limit) {
		return fmt.Errorf("it has %d bytes, more than the server's limit of %d", ref.GetSize(), limit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.wants[d.String()]; w != nil {
		if w.size != ref.GetSize() {
			return fmt.Errorf("the node announced the same content with %d and with %d bytes", w.size, ref.GetSize())
		}
		return nil
	}
	r.wants[d.String()] = &want{digest: d, size: ref.GetSize(), fresh: r.spec.GetNoCache()}
	r.unpin = append(r.unpin, r.store.Objects.Pin(d))
	return nil
}

func (r *run) want(digest string) *want {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wants[digest]
}

// release lets objects be evicted again.
func (r *run) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.unpin {
		f()
	}
	r.unpin = nil
}
