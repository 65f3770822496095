package server

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// agents knows which nodes are connected, and which runs they hold. A node
// that goes away stays known for a while, so that it can come back to its
// runs.
type agents struct {
	grace time.Duration
	log   *slog.Logger

	mu    sync.Mutex
	nodes map[string]*node // by name
	over  error            // set once the server stops
}

// node is one agent process and what belongs to it. Its fields are guarded by
// agents.mu.
type node struct {
	name string
	// session tells one process of the agent from the next.
	session string
	// handled is the highest sequence number of the session that was handled.
	handled uint64
	link    *link           // nil while the node is away
	knows   []string        // commands, as the agent names them
	runs    map[string]*run // by id
	timer   *time.Timer     // runs while the node is away
}

func newAgents(grace time.Duration, log *slog.Logger) *agents {
	return &agents{grace: grace, log: log, nodes: map[string]*node{}}
}

// attach gives a node its new stream, and says again what may not have
// arrived through the last one.
func (a *agents) attach(hello *confinev1.Hello) (*node, *link, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over != nil {
		return nil, nil, a.over
	}
	name := hello.GetNode().GetName()
	n := a.nodes[name]
	if n != nil && n.session != hello.GetSession() {
		a.drop(n, status.Errorf(codes.Aborted, "the agent on node %s was started anew during the run; run the command again", name))
		n = nil
	}
	if n == nil {
		n = &node{name: name, session: hello.GetSession(), runs: map[string]*run{}}
		a.nodes[name] = n
	}
	if n.timer != nil {
		n.timer.Stop()
	}
	if n.link != nil {
		n.link.close(status.Error(codes.Aborted, "the agent has opened another stream"))
	}
	n.link, n.knows = newLink(n.handled), hello.GetCommands()
	a.catchUp(n, hello.GetRunIds())
	return n, n.link, nil
}

// catchUp repeats commands that have no answer yet, and ends runs that only
// the agent knows.
func (a *agents) catchUp(n *node, held []string) {
	for id, r := range n.runs {
		if slices.Contains(held, id) {
			delete(r.pending, keyStart)
		}
		for _, key := range r.pendingKeys() {
			n.link.send(r.pending[key])
		}
	}
	for _, id := range held {
		if n.runs[id] == nil {
			n.link.send(&confinev1.ConnectResponse{RunId: id, Message: &confinev1.ConnectResponse_EndRun{
				EndRun: &confinev1.EndRun{Reason: "the server does not know this run any more"},
			}})
		}
	}
}

// detach takes the stream from a node. Its runs wait for the next one.
func (a *agents) detach(n *node, l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n.link != l {
		return
	}
	n.link = nil
	for _, r := range n.runs {
		r.say(&confinev1.Progress{Stage: r.stage(), Text: "node " + n.name + " is away, waiting for it to come back"})
	}
	n.timer = time.AfterFunc(a.grace, func() { a.lose(n) })
}

// lose gives up a node that did not come back.
func (a *agents) lose(n *node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n.link != nil || a.nodes[n.name] != n {
		return
	}
	a.log.Warn("agent lost", "node", n.name, "away", a.grace)
	a.drop(n, status.Errorf(codes.Aborted, "node %s was lost: its agent has not come back for %v; look at the agent there ('journalctl -u confine-agent'), then run the command again", n.name, a.grace))
}

// drop forgets a node and ends its runs. a.mu is held.
func (a *agents) drop(n *node, cause error) {
	if n.timer != nil {
		n.timer.Stop()
	}
	if n.link != nil {
		n.link.close(cause)
	}
	for _, r := range n.runs {
		r.fail(cause)
		r.over() // nobody is left who would say so
	}
	delete(a.nodes, n.name)
}

// close ends all streams, and refuses new ones.
func (a *agents) close(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = cause
	for _, n := range a.nodes {
		a.drop(n, cause)
	}
}

// begin gives a run to a node that is connected. ok is false when it isn't.
func (a *agents) begin(name string, r *run) (ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[name]
	if n == nil || n.link == nil {
		return false
	}
	n.runs[r.id] = r
	r.node = n
	return true
}

// knows reports whether the agent of a node knows a command. It is true for a
// node that isn't connected.
func (a *agents) knows(name, command string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[name]
	return n == nil || n.link == nil || slices.Contains(n.knows, command)
}

// end forgets a run.
func (a *agents) end(r *run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(r.node.runs, r.id)
}

// command sends a run's command to its node, now or when it is back, and
// again after every break until the answer has come.
func (a *agents) command(r *run, key string, m *confinev1.ConnectResponse) {
	m.RunId = r.id
	a.mu.Lock()
	defer a.mu.Unlock()
	r.pending[key] = m
	if r.node.link != nil {
		r.node.link.send(m)
	}
}

// handle gives a message to the run that it is for. A message that was
// handled already, before a break, is left out.
func (a *agents) handle(n *node, l *link, m *confinev1.ConnectRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n.link != l {
		return // it comes again through the stream that replaced this one
	}
	if m.GetSeq() == 0 || m.GetSeq() > n.handled {
		if r := n.runs[m.GetRunId()]; r != nil {
			delete(r.pending, keyStart)
			delete(r.pending, answers(m))
			r.deliver(m)
		}
	}
	n.handled = max(n.handled, m.GetSeq())
	l.acknowledge(n.handled)
}

// wanted finds what a node was asked to upload, nil when it was not.
func (a *agents) wanted(name, digest string) *want {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[name]
	if n == nil {
		return nil
	}
	for _, r := range n.runs {
		if w := r.want(digest); w != nil {
			return w
		}
	}
	return nil
}

// wantedByAny is wanted for a caller whose node isn't known by a certificate.
func (a *agents) wantedByAny(digest string) *want {
	for _, name := range a.connected() {
		if w := a.wanted(name, digest); w != nil {
			return w
		}
	}
	return nil
}

// connected lists the names of the nodes that are there, sorted.
func (a *agents) connected() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for name, n := range a.nodes {
		if n.link != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// link is one stream to an agent, from the sender's point of view.
type link struct {
	closed chan struct{}
	wake   chan struct{} // holds one token when there is something to send

	mu    sync.Mutex
	queue []*confinev1.ConnectResponse
	ack   uint64
	said  uint64 // ack that was sent
	cause error  // why it was closed
}

func newLink(handled uint64) *link {
	return &link{closed: make(chan struct{}), wake: make(chan struct{}, 1), ack: handled, said: handled}
}

func (l *link) send(m *confinev1.ConnectResponse) {
	l.mu.Lock()
	l.queue = append(l.queue, m)
	l.mu.Unlock()
	l.poke()
}

func (l *link) acknowledge(seq uint64) {
	l.mu.Lock()
	l.ack = max(l.ack, seq)
	l.mu.Unlock()
	l.poke()
}

func (l *link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) close(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.cause = cause
		close(l.closed)
	}
}

func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// next takes what there is to send: commands, or else an acknowledgement
// alone when one is due.
func (l *link) next() []*confinev1.ConnectResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*confinev1.ConnectResponse
	for _, m := range l.queue {
		// The message may be sent again through the next stream: it's not
		// changed.
		out = append(out, &confinev1.ConnectResponse{Ack: l.ack, RunId: m.GetRunId(), Message: m.Message})
	}
	if len(out) == 0 && l.ack > l.said {
		out = append(out, &confinev1.ConnectResponse{Ack: l.ack})
	}
	l.queue, l.said = nil, l.ack
	return out
}
