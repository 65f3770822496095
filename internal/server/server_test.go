package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/confinehq/confine/internal/server"
	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/seccomp"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// fixture is a server with one node, n1, whose root holds a program and a
// library.
type fixture struct {
	t        *testing.T
	store    *store.Store
	agent    *scriptedAgent
	operator confinev1.OperatorServiceClient
	conn     *grpc.ClientConn
	root     string
	stop     func() error
}

// analyser stands for the analysis: it opens every program and what each
// loads, and finds the calls that the test wants.
type analyser struct {
	requests chan analysis.Request
	result   analysis.Result
	err      error
	panics   bool
}

func newAnalyser() *analyser {
	return &analyser{requests: make(chan analysis.Request, 16), result: analysis.Result{Platform: "linux/amd64", Syscalls: []analysis.Syscall{
		{Name: "read", Nr: 0, Reasons: []analysis.Reason{{Kind: "site", Chain: []analysis.Frame{{Object: "/app", Symbol: "main", Edge: "entry"}}}}},
		{Name: "futex", Nr: 202, Reasons: []analysis.Reason{{Kind: "site"}}},
		{Name: "clone", Nr: 56, Reasons: []analysis.Reason{{Kind: "site"}}},
	}}}
}

func (a *analyser) analyze(ctx context.Context, req analysis.Request) (*analysis.Result, error) {
	a.requests <- req
	if a.err != nil {
		return nil, a.err
	}
	if a.panics {
		panic("hostile input")
	}
	for _, p := range req.Programs {
		for _, path := range append([]string{p.Path}, p.Load...) {
			f, err := req.Root.Open(ctx, path)
			if err != nil {
				return nil, err
			}
			if _, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, f.Size())); err != nil {
				return nil, err
			}
			f.Close()
		}
	}
	r := a.result
	return &r, nil
}

func setup(t *testing.T, a *analyser) *fixture {
	t.Helper()
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	srv, err := server.New(t.Context(), server.Config{
		Store: st, Analyze: a.analyze, AgentGrace: 300 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	memory := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, server.Listener{Listener: memory}) }()
	stopped := false
	f := &fixture{t: t, store: st, root: t.TempDir()}
	f.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	f.conn, err = grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return memory.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.conn.Close() })
	f.operator = confinev1.NewOperatorServiceClient(f.conn)
	for name, content := range map[string]string{"app": "\x7fELF app", "lib.so": "\x7fELF lib" + strings.Repeat("x", 5000), "bin/sh": "\x7fELF sh", "entry": "#!/bin/sh\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(f.root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.root, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.agent = newAgent(t, f.conn, "n1", f.root)
	f.agent.observe = f.observation
	return f
}

// observation is an ordinary one.
func (f *fixture) observation() *confinev1.Observation {
	return &confinev1.Observation{
		Image: &confinev1.ImageInfo{
			Image: "docker.io/library/app:latest", Digest: "sha256:abc", Platform: "linux/amd64",
			Args: []string{"app", "-x"}, Env: []string{"PATH=/nowhere:/"}, Healthcheck: []string{"/bin/sh", "-c", "true"},
		},
		Run: &confinev1.Run{Events: 3, SettledBy: "quiet for 2s", Seconds: 2.5, Recorded: []*confinev1.Recorded{
			{Path: "", Syscalls: []string{"mount"}}, {Path: "/app", Syscalls: []string{"futex", "read"}},
		}},
		Files:   []*confinev1.FileSeen{f.agent.seen("/app", "elf", 1, "/app"), f.agent.seen("/lib.so", "elf", 0, "/app")},
		Runtime: &confinev1.Runtime{Name: "runc 1.1.5", Floor: []string{"prctl", "execve", "futex"}},
		Monitor: "ebpf",
	}
}

// profile makes a run and returns its result and the stages that were shown.
func (f *fixture) profile(ctx context.Context, req *confinev1.ProfileRequest) (*confinev1.Result, []string, error) {
	f.t.Helper()
	if req.Spec == nil {
		req.Spec = &confinev1.RunSpec{Image: "app"}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := f.operator.Profile(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	var stages []string
	var result *confinev1.Result
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return result, stages, nil
		}
		if err != nil {
			return nil, stages, err
		}
		if p := m.GetProgress(); p.GetDone() {
			stages = append(stages, p.GetStage())
		}
		if m.GetResult() != nil {
			result = m.GetResult()
		}
	}
}

func (f *fixture) mustProfile(req *confinev1.ProfileRequest) *confinev1.Result {
	f.t.Helper()
	r, _, err := f.profile(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func kinds(list []*confinev1.Incomplete) []string {
	var out []string
	for _, i := range list {
		out = append(out, i.GetKind())
	}
	return out
}

func TestProfile(t *testing.T) {
	a := newAnalyser()
	f := setup(t, a)
	f.agent.mustConnect()
	r, stages, err := f.profile(t.Context(), &confinev1.ProfileRequest{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"image", "run", "upload", "analyse", "prove"}; !slices.Equal(stages, want) {
		t.Errorf("stages %q, want %q", stages, want)
	}
	if len(r.GetIncomplete()) > 0 || r.GetProof().GetStatus() != "proven" {
		t.Errorf("incomplete %v, proof %v", r.GetIncomplete(), r.GetProof())
	}
	var names []string
	for _, s := range r.GetSyscalls() {
		var reasons []string
		for _, reason := range s.GetReasons() {
			reasons = append(reasons, reason.GetKind())
		}
		seen := ""
		if s.GetSeen() {
			seen = "+"
		}
		names = append(names, s.GetName()+seen+":"+strings.Join(reasons, ","))
	}
	if want := []string{"clone:site", "execve:floor", "futex+:site,floor", "prctl:floor", "read+:site", "restart_syscall:kernel"}; !slices.Equal(names, want) {
		t.Errorf("calls %q, want %q", names, want)
	}
	p := profileOf(t, r)
	if want := []string{"clone", "execve", "futex", "prctl", "read", "restart_syscall"}; !slices.Equal(p.Allowed(), want) {
		t.Errorf("the profile allows %q, want %q", p.Allowed(), want)
	}
	if r.GetImage() != "docker.io/library/app:latest" || r.GetNode() != "n1" || r.GetMonitor() != "ebpf" || r.GetKernelSyscalls() < 300 || r.GetDefaultSyscalls() < 200 {
		t.Errorf("result %v", r)
	}
	req := <-a.requests
	if len(req.Programs) != 2 || req.Programs[0].Path != "/app" || !slices.Equal(req.Programs[0].Load, []string{"/lib.so"}) ||
		!slices.Equal(req.Programs[0].Args, []string{"app", "-x"}) || req.Programs[1].Path != "/bin/sh" || req.Programs[1].Origin != analysis.OriginStatic {
		t.Errorf("programs %+v", req.Programs)
	}
	if got := f.agent.commands(); got[0] != "start" || got[len(got)-2] != "prove" || got[len(got)-1] != "end" {
		t.Errorf("commands %q", got)
	}
	// The result is stored, and found by id and by image.
	for _, name := range []string{r.GetId(), "app", "docker.io/library/app:latest", "sha256:abc"} {
		got, err := f.operator.GetProfile(t.Context(), &confinev1.GetProfileRequest{Name: name})
		if err != nil || got.GetResult().GetId() != r.GetId() {
			t.Errorf("GetProfile(%q): %v, %v", name, got.GetResult().GetId(), err)
		}
	}
	list, err := f.operator.ListProfiles(t.Context(), &confinev1.ListProfilesRequest{Image: "app"})
	if err != nil || len(list.GetProfiles()) != 1 || list.GetProfiles()[0].GetProof() != "proven" || list.GetProfiles()[0].GetSyscalls() != 6 {
		t.Errorf("ListProfiles: %v, %v", list, err)
	}
}

func TestSecondRunUploadsNothing(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.mustConnect()
	f.mustProfile(&confinev1.ProfileRequest{})
	first := f.agent.uploads
	f.mustProfile(&confinev1.ProfileRequest{})
	if f.agent.uploads != first || first != 3 {
		t.Errorf("%d uploads, then %d; want 3 (one on demand), then none", first, f.agent.uploads-first)
	}
	f.mustProfile(&confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "app", NoCache: true}})
	if f.agent.uploads == first {
		t.Error("without caches nothing was uploaded anew")
	}
}

func TestStaticMissIsAllowedAndReported(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.observe = func() *confinev1.Observation {
		o := f.observation()
		o.Run.Recorded[1].Syscalls = []string{"prctl", "ptrace", "read", "syscall_9999"}
		return o
	}
	f.agent.mustConnect()
	r := f.mustProfile(&confinev1.ProfileRequest{})
	if got, want := kinds(r.GetIncomplete()), []string{"static-miss", "static-miss", "unknown-call"}; !slices.Equal(got, want) {
		t.Errorf("incomplete %q, want %q", got, want)
	}
	for _, s := range r.GetSyscalls() {
		if s.GetName() == "ptrace" && (len(s.GetReasons()) != 1 || s.GetReasons()[0].GetKind() != "fallback") {
			t.Errorf("ptrace: %v", s)
		}
	}
	if !strings.Contains(r.GetProfile().String(), "ptrace") {
		t.Error("a call that was really made is not allowed")
	}
}

// profileOf reads the profile of a result.
func profileOf(t *testing.T, r *confinev1.Result) *seccomp.Profile {
	t.Helper()
	data, err := r.GetProfile().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	p, err := seccomp.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCallsOf32BitCode has a 32-bit program whose code could not be followed, so
// that every call of its table was found; alone in its image, or among others.
func TestCallsOf32BitCode(t *testing.T) {
	for _, platform := range []string{"linux/amd64", "linux/386"} {
		t.Run(platform, func(t *testing.T) {
			a := newAnalyser()
			a.result.Compat = true
			a.result.Incomplete = []analysis.Issue{{Kind: "foreign-arch", Object: "/app", Detail: "a 32-bit program"}}
			for _, name := range []string{"socketcall", "mmap2"} {
				a.result.Syscalls = append(a.result.Syscalls, analysis.Syscall{Name: name, Nr: -1, Reasons: []analysis.Reason{{Kind: "fallback", Detail: "/app can make any"}}})
			}
			f := setup(t, a)
			f.agent.observe = func() *confinev1.Observation {
				o := f.observation()
				o.Image.Platform = platform
				o.Run.Recorded = append(o.Run.Recorded, &confinev1.Recorded{Path: "/app32", Compat: []string{"socketcall", "mmap2"}})
				return o
			}
			f.agent.mustConnect()
			r := f.mustProfile(&confinev1.ProfileRequest{})
			if got := kinds(r.GetIncomplete()); !slices.Equal(got, []string{"foreign-arch"}) {
				t.Errorf("incomplete %v", r.GetIncomplete())
			}
			p := profileOf(t, r)
			if allowed := p.Allowed(); !slices.Contains(allowed, "socketcall") || !slices.Contains(allowed, "mmap2") {
				t.Errorf("the profile allows %q", allowed)
			}
			if want := []string{seccomp.ArchX8664, seccomp.ArchX86}; !slices.Equal(p.Architectures, want) {
				t.Errorf("the profile is for %q, want %q", p.Architectures, want)
			}
		})
	}
}

// TestUnreadableOnce has the node and the analysis fail at the same file.
func TestUnreadableOnce(t *testing.T) {
	a := newAnalyser()
	a.result.Incomplete = []analysis.Issue{{Kind: "unreadable-object", Object: "/gone", Detail: "open /gone: it can't be sent"}, {Kind: "unreadable-object", Object: "/other", Detail: "x"}}
	f := setup(t, a)
	f.agent.observe = func() *confinev1.Observation {
		o := f.observation()
		o.Incomplete = []*confinev1.Incomplete{{Kind: "unreadable-object", Object: "/gone", Detail: "read it: input/output error"}}
		return o
	}
	f.agent.mustConnect()
	var got []string
	for _, i := range f.mustProfile(&confinev1.ProfileRequest{}).GetIncomplete() {
		got = append(got, i.GetObject()+": "+i.GetDetail())
	}
	if want := []string{"/gone: read it: input/output error", "/other: x"}; !slices.Equal(got, want) {
		t.Errorf("incomplete %q, want %q", got, want)
	}
}

func TestWhatIsLackingIsSaid(t *testing.T) {
	a := newAnalyser()
	a.result.Incomplete = []analysis.Issue{{Kind: "computed-exec", Object: "/app", Detail: "x"}}
	for name, c := range map[string]struct {
		change func(*confinev1.Observation)
		want   []string
	}{
		"lost events": {func(o *confinev1.Observation) { o.Run.Lost = 7 }, []string{"computed-exec", "lost-events"}},
		"lost, said so": {func(o *confinev1.Observation) {
			o.Run.Lost = 7
			o.Incomplete = []*confinev1.Incomplete{{Kind: "lost-events"}}
		}, []string{"computed-exec", "lost-events"}},
		"no floor":        {func(o *confinev1.Observation) { o.Runtime = nil }, []string{"computed-exec", "no-floor"}},
		"unreadable file": {func(o *confinev1.Observation) { o.Files[1].Sha256, o.Files[1].Error = "", "gone" }, []string{"computed-exec", "unreadable-object"}},
		"changed file": {func(o *confinev1.Observation) {
			o.Files[1].Sha256 = strings.Repeat("0", 64)
			o.Files[1].Kind = "unknown"
		}, []string{"changed-object", "computed-exec"}},
		"relative path":  {func(o *confinev1.Observation) { o.Files[1].Path = "../lib.so" }, []string{"computed-exec", "unreadable-object"}},
		"digest no hex":  {func(o *confinev1.Observation) { o.Files[1].Sha256 = "../../etc/passwd" }, []string{"computed-exec", "unreadable-object"}},
		"odd kind":       {func(o *confinev1.Observation) { o.Incomplete = []*confinev1.Incomplete{{Kind: "\x1b[2J"}} }, []string{"computed-exec", "other"}},
		"no healthcheck": {func(o *confinev1.Observation) { o.Image.Healthcheck = []string{"curl"} }, []string{"computed-exec", "unreadable-object"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, a)
			f.agent.observe = func() *confinev1.Observation {
				o := f.observation()
				c.change(o)
				return o
			}
			f.agent.mustConnect()
			r := f.mustProfile(&confinev1.ProfileRequest{})
			if got := kinds(r.GetIncomplete()); !slices.Equal(got, c.want) {
				t.Errorf("incomplete %v, want %q", r.GetIncomplete(), c.want)
			}
		})
	}
}

func TestObservationThatCannotBeUsed(t *testing.T) {
	for name, change := range map[string]func(*confinev1.Observation){
		"no image":         func(o *confinev1.Observation) { o.Image = nil },
		"unknown platform": func(o *confinev1.Observation) { o.Image.Platform = "plan9/vax" },
		"no run":           func(o *confinev1.Observation) { o.Run = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, newAnalyser())
			f.agent.observe = func() *confinev1.Observation {
				o := f.observation()
				change(o)
				return o
			}
			f.agent.mustConnect()
			_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
			if status.Code(err) != codes.Internal {
				t.Errorf("%v, want Internal", err)
			}
			f.mustHaveEnded()
		})
	}
}

// mustHaveEnded checks that the agent was told to clean up.
func (f *fixture) mustHaveEnded() {
	f.t.Helper()
	got := f.agent.commands()
	if len(got) == 0 || got[len(got)-1] != "end" {
		f.t.Errorf("commands %q, want end as the last", got)
	}
}

func TestProofs(t *testing.T) {
	denied := []*confinev1.Denied{{Name: "ptrace", Nr: 101, Process: "/app", Caller: "/app+0x10\x1b[31m", Count: 2, Args: make([]uint64, 1000), Text: "ptrace(PTRACE_ATTACH=0x10, \x1b[31m"}}
	for name, c := range map[string]struct {
		said *confinev1.Proof
		want string
	}{
		"proven":                 {&confinev1.Proof{Status: "proven"}, "proven"},
		"denied":                 {&confinev1.Proof{Status: "denied", Denied: denied}, "denied"},
		"proven and denied":      {&confinev1.Proof{Status: "proven", Denied: denied}, "denied"},
		"failed":                 {&confinev1.Proof{Status: "failed"}, "failed"},
		"a word that is no word": {&confinev1.Proof{Status: "perfect"}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, newAnalyser())
			f.agent.script = func(m *confinev1.ConnectResponse) bool {
				if m.GetProve() == nil {
					return false
				}
				f.agent.say(m.GetRunId(), proof(c.said))
				return true
			}
			f.agent.mustConnect()
			r := f.mustProfile(&confinev1.ProfileRequest{})
			if got := r.GetProof().GetStatus(); got != c.want {
				t.Errorf("status %q, want %q", got, c.want)
			}
			if strings.ContainsRune(r.GetProof().String(), 0x1b) {
				t.Error("a terminal's escape went through")
			}
			for _, d := range r.GetProof().GetDenied() {
				if len(d.GetArgs()) != 6 || !strings.HasPrefix(d.GetText(), "ptrace(PTRACE_ATTACH") {
					t.Errorf("refused call %v, want six arguments and its text", d)
				}
			}
		})
	}
	f := setup(t, newAnalyser())
	f.agent.mustConnect()
	r := f.mustProfile(&confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "app", NoProof: true}})
	if r.GetProof().GetStatus() != "skipped" || slices.Contains(f.agent.commands(), "prove") {
		t.Errorf("without a proof: %v, %q", r.GetProof(), f.agent.commands())
	}
}

func TestLeftoversAreSaid(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.script = func(m *confinev1.ConnectResponse) bool {
		if m.GetEndRun() == nil {
			return false
		}
		f.agent.say(m.GetRunId(), runEnded("a snapshot"))
		return true
	}
	f.agent.mustConnect()
	r := f.mustProfile(&confinev1.ProfileRequest{})
	if got := kinds(r.GetNotes()); !slices.Equal(got, []string{"leftovers"}) {
		t.Errorf("notes %v", r.GetNotes())
	}
}

func TestWhoCannotBeAsked(t *testing.T) {
	f := setup(t, newAnalyser())
	check := func(node string, code codes.Code, says string) {
		t.Helper()
		_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{Node: node})
		if status.Code(err) != code || !strings.Contains(err.Error(), says) {
			t.Errorf("node %q: %v, want %v that says %q", node, err, code, says)
		}
	}
	check("", codes.FailedPrecondition, "no node is connected")
	check("n1", codes.NotFound, `node "n1" is unknown`)
	f.agent.mustConnect()
	check("n2", codes.NotFound, "connected: n1")
	second := newAgent(t, f.conn, "n2", f.root).mustConnect()
	check("", codes.InvalidArgument, "2 nodes are connected (n1, n2)")
	second.cut()
	f.eventually("n2 is away", func() bool {
		list, err := f.operator.ListNodes(t.Context(), &confinev1.ListNodesRequest{})
		return err == nil && len(list.GetNodes()) == 2 && list.GetNodes()[0].GetConnected() && !list.GetNodes()[1].GetConnected()
	})
	check("n2", codes.FailedPrecondition, "not connected, it was last seen")
}

func (f *fixture) eventually(what string, cond func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("never: %s", what)
		}
	}
}

func TestSpecsThatAreRefused(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.mustConnect()
	for name, spec := range map[string]*confinev1.RunSpec{
		"nothing": {}, "both": {Image: "a", ContainerId: "b"}, "no reference": {Image: "UPPER CASE"},
		"relative file": {Image: "a", Load: []string{"lib.so"}}, "too long": {Image: "a", Args: make([]string, 5000)},
	} {
		if _, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{Spec: spec}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	if got := f.agent.commands(); len(got) > 0 {
		t.Errorf("the agent was asked: %q", got)
	}
}

func TestRunErrors(t *testing.T) {
	for code, want := range map[codes.Code]codes.Code{
		codes.NotFound: codes.NotFound, codes.Unavailable: codes.FailedPrecondition, codes.Unauthenticated: codes.FailedPrecondition,
		codes.OK: codes.Aborted, 999: codes.Aborted,
	} {
		f := setup(t, newAnalyser())
		f.agent.script = func(m *confinev1.ConnectResponse) bool {
			if m.GetStartRun() == nil {
				return false
			}
			f.agent.say(m.GetRunId(), &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_RunError{
				RunError: &confinev1.RunError{Code: uint32(code), Message: "no such image", Stage: "image"},
			}})
			return true
		}
		f.agent.mustConnect()
		_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
		if status.Code(err) != want || !strings.Contains(err.Error(), "node n1, stage image: no such image") {
			t.Errorf("code %v: %v, want %v", code, err, want)
		}
		f.mustHaveEnded()
		runs, err := f.store.Runs(t.Context())
		if err != nil || len(runs) != 1 || runs[0].State != store.RunFailed || runs[0].Error == "" {
			t.Errorf("runs %+v, %v", runs, err)
		}
	}
}

func TestAnalysisErrorsAndPanics(t *testing.T) {
	a := newAnalyser()
	a.err = errors.New("no program could be read")
	f := setup(t, a)
	f.agent.mustConnect()
	_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no program could be read") {
		t.Errorf("%v", err)
	}
	f.mustHaveEnded()

	a.err, a.panics = nil, true
	_, _, err = f.profile(t.Context(), &confinev1.ProfileRequest{})
	if err == nil || !strings.Contains(err.Error(), "the analysis gave up") {
		t.Errorf("after a panic: %v", err)
	}
	f.mustHaveEnded()
}

// hold makes the agent keep a command to itself; the channel closes when it
// has come.
func (f *fixture) hold(is func(*confinev1.ConnectResponse) bool) <-chan struct{} {
	came := make(chan struct{}, 16)
	f.agent.script = func(m *confinev1.ConnectResponse) bool {
		if is(m) {
			came <- struct{}{}
			return true
		}
		return false
	}
	return came
}

func isStart(m *confinev1.ConnectResponse) bool { return m.GetStartRun() != nil }

func TestCancelEndsTheRun(t *testing.T) {
	for stage, is := range map[string]func(*confinev1.ConnectResponse) bool{
		"start":  isStart,
		"lookup": func(m *confinev1.ConnectResponse) bool { return m.GetLookup() != nil },
		"upload": func(m *confinev1.ConnectResponse) bool { return m.GetUpload() != nil },
		"prove":  func(m *confinev1.ConnectResponse) bool { return m.GetProve() != nil },
	} {
		t.Run(stage, func(t *testing.T) {
			f := setup(t, newAnalyser())
			came := f.hold(is)
			f.agent.mustConnect()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, _, err := f.profile(ctx, &confinev1.ProfileRequest{})
				done <- err
			}()
			<-came
			cancel()
			if err := <-done; status.Code(err) != codes.Canceled {
				t.Errorf("%v, want Canceled", err)
			}
			f.eventually("the run is ended", func() bool {
				got := f.agent.commands()
				return got[len(got)-1] == "end"
			})
		})
	}
}

// TestStreamBreaks breaks the stream at every kind of command and lets the
// agent come back, with the run and what it had to say.
func TestStreamBreaks(t *testing.T) {
	for stage, is := range map[string]func(*confinev1.ConnectResponse) bool{
		"start":  isStart,
		"lookup": func(m *confinev1.ConnectResponse) bool { return m.GetLookup() != nil },
		"upload": func(m *confinev1.ConnectResponse) bool { return m.GetUpload() != nil },
		"prove":  func(m *confinev1.ConnectResponse) bool { return m.GetProve() != nil },
		"end":    func(m *confinev1.ConnectResponse) bool { return m.GetEndRun() != nil },
	} {
		t.Run(stage, func(t *testing.T) {
			f := setup(t, newAnalyser())
			came := f.hold(is)
			f.agent.mustConnect()
			done := make(chan error, 1)
			go func() {
				r, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
				if err == nil && r.GetProof().GetStatus() != "proven" {
					err = errors.New("not proven")
				}
				done <- err
			}()
			<-came
			f.agent.cut()
			f.agent.script = nil // the command comes again, and is answered
			f.agent.mustConnect()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAgentLost(t *testing.T) {
	f := setup(t, newAnalyser())
	came := f.hold(isStart)
	f.agent.mustConnect()
	cut := make(chan struct{})
	go func() { defer close(cut); <-came; f.agent.cut() }()
	_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "node n1 was lost") {
		t.Errorf("%v, want Aborted: node n1 was lost", err)
	}
	<-cut
}

func TestAgentStartedAnew(t *testing.T) {
	f := setup(t, newAnalyser())
	came := f.hold(isStart)
	f.agent.mustConnect()
	next := newAgent(t, f.conn, "n1", f.root)
	next.hello.Session = "s2"
	connected := make(chan error, 1)
	go func() { <-came; connected <- next.connect() }()
	_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "started anew") {
		t.Errorf("%v, want Aborted: started anew", err)
	}
	if err := <-connected; err != nil {
		t.Errorf("the new agent: %v", err)
	}
}

func TestUnknownRunsAreEnded(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.hello.RunIds = []string{"old"}
	f.agent.mustConnect()
	f.eventually("the old run is ended", func() bool { return slices.Equal(f.agent.commands(), []string{"end"}) })
}

func TestStopEndsRuns(t *testing.T) {
	f := setup(t, newAnalyser())
	came := f.hold(isStart)
	f.agent.mustConnect()
	done := make(chan error, 1)
	go func() {
		_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
		done <- err
	}()
	<-came
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if err := <-done; status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("%v, want Aborted: stopping", err)
	}
	f.mustHaveEnded()
}

func TestUploadsThatNobodyAskedFor(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.mustConnect()
	content := []byte("anything")
	ref := f.agent.seen("/app", "elf", 1)
	object := &confinev1.ObjectRef{Path: "/app", Sha256: ref.GetSha256(), Size: ref.GetSize()}
	if err := f.agent.send(t.Context(), object, content, 0); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Upload: %v, want FailedPrecondition", err)
	}
	if _, err := f.agent.client.FindMissing(t.Context(), &confinev1.FindMissingRequest{Objects: []*confinev1.ObjectRef{object}}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("FindMissing: %v, want FailedPrecondition", err)
	}
}

// TestUploadLies has an agent send something else than it announced.
func TestUploadLies(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(o *confinev1.ObjectRef, content []byte) (*confinev1.ObjectRef, []byte, uint64)
		want codes.Code
	}{
		"other content": {func(o *confinev1.ObjectRef, b []byte) (*confinev1.ObjectRef, []byte, uint64) {
			return o, []byte(strings.Repeat("y", len(b))), 0
		}, codes.DataLoss},
		"more": {func(o *confinev1.ObjectRef, b []byte) (*confinev1.ObjectRef, []byte, uint64) {
			return o, append(b, "more"...), 0
		}, codes.DataLoss},
		"less": {func(o *confinev1.ObjectRef, b []byte) (*confinev1.ObjectRef, []byte, uint64) {
			return o, b[:3], 0
		}, codes.OutOfRange},
		"a hole": {func(o *confinev1.ObjectRef, b []byte) (*confinev1.ObjectRef, []byte, uint64) {
			return o, b, 2
		}, codes.OutOfRange},
		"other size": {func(o *confinev1.ObjectRef, b []byte) (*confinev1.ObjectRef, []byte, uint64) {
			return &confinev1.ObjectRef{Path: o.GetPath(), Sha256: o.GetSha256(), Size: o.GetSize() + 1}, b, 0
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, newAnalyser())
			errs := make(chan error, 16)
			f.agent.script = func(m *confinev1.ConnectResponse) bool {
				up := m.GetUpload()
				if up == nil {
					return false
				}
				reply := &confinev1.UploadReply{RequestId: up.GetRequestId()}
				for _, o := range up.GetObjects() {
					ref, content, offset := c.lie(o, f.agent.content(o.GetPath()))
					err := f.agent.send(t.Context(), ref, content, offset)
					errs <- err
					reply.Failed = append(reply.Failed, &confinev1.Incomplete{Kind: "unreadable-object", Object: o.GetPath(), Detail: "lied"})
				}
				f.agent.say(m.GetRunId(), &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_UploadReply{UploadReply: reply}})
				return true
			}
			f.agent.mustConnect()
			_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{})
			if err == nil {
				t.Error("a run whose program did not come has a result")
			}
			if err := <-errs; status.Code(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestHelloIsChecked(t *testing.T) {
	f := setup(t, newAnalyser())
	for name, hello := range map[string]*confinev1.Hello{
		"nothing": nil, "no session": {Node: &confinev1.Hello_Node{Name: "n1"}},
		"a bad name": {Session: "s", Node: &confinev1.Hello_Node{Name: "../n1"}},
	} {
		a := newAgent(t, f.conn, "n1", f.root)
		a.hello = hello
		if err := a.connect(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
}

// TestUnresolvedIsLeftToTheRun has a program that can make any call: those that
// it was seen making are allowed, and said to be assumed; of other programs they
// are mistakes of the analysis.
func TestUnresolvedIsLeftToTheRun(t *testing.T) {
	a := newAnalyser()
	f := setup(t, a)
	f.agent.observe = func() *confinev1.Observation {
		o := f.observation()
		o.Run.Recorded[1].Syscalls = []string{"ptrace"}
		a.result.Incomplete = []analysis.Issue{{Kind: "assumed", Object: o.Run.Recorded[1].Path, Detail: "it can make any call"}}
		return o
	}
	f.agent.mustConnect()
	r := f.mustProfile(&confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "app", OnUnresolved: "observe"}})
	if got := (<-a.requests).Options.OnUnresolved; got != analysis.UnresolvedObserve {
		t.Errorf("the analysis was asked for %q", got)
	}
	if got := kinds(r.GetIncomplete()); !slices.Contains(got, "assumed") || slices.Contains(got, "static-miss") {
		t.Errorf("incomplete %q", got)
	}
	i := slices.IndexFunc(r.GetSyscalls(), func(s *confinev1.Syscall) bool { return s.GetName() == "ptrace" })
	if i < 0 || r.GetSyscalls()[i].GetReasons()[0].GetKind() != "observed" {
		t.Errorf("ptrace isn't allowed because it was seen: %v", r.GetSyscalls())
	}
	_, _, err := f.profile(t.Context(), &confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "app", OnUnresolved: "guess"}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a way that isn't known: %v", err)
	}
}
