package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// victimVariable makes this test binary a process that is killed.
const victimVariable = "CONFINE_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimVariable); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, cfg store.Config) *store.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func result(id string, at time.Time) (*confinev1.Result, *confinev1.ProfileSummary) {
	return &confinev1.Result{Id: id, Image: "img", Syscalls: []*confinev1.Syscall{{Name: "read"}}},
		&confinev1.ProfileSummary{Id: id, Image: "img", Created: timestamppb.New(at)}
}

// fill keeps one of everything.
func fill(ctx context.Context, s *store.Store) error {
	r, line := result("r1", time.Unix(1000, 0))
	_, putErr := s.Objects.Put([]byte("an object"))
	return errors.Join(putErr,
		s.PutResult(ctx, r, line),
		s.PutNode(ctx, &confinev1.Node{Name: "n1", Version: "v"}),
		s.PutToken(ctx, "hash", store.Token{Role: "agent", Expires: time.Now().Add(time.Hour)}),
		s.PutRun(ctx, store.Run{ID: "r1", State: store.RunActive}),
		s.Facts().Put(ctx, "facts-1.x", []byte("facts")),
	)
}

// victim keeps one of everything, has begun an upload, and is killed at once.
func victim(dir string) {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err == nil {
		err = fill(ctx, s)
	}
	if err == nil {
		content := bytes.Repeat([]byte("0123456789"), 1000)
		var u *store.Upload
		if u, err = s.Objects.Begin(digest(content), int64(len(content)), 0); err == nil {
			_, err = u.Write(content[:4000])
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	p, _ := os.FindProcess(os.Getpid())
	_ = p.Kill()
	select {}
}

func check(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	want, _ := result("r1", time.Time{})
	if r, err := s.Result(ctx, "r1"); err != nil || !proto.Equal(r, want) {
		t.Errorf("result %v, %v", r, err)
	}
	if all, err := s.Summaries(ctx); err != nil || len(all) != 1 || all[0].GetId() != "r1" {
		t.Errorf("summaries %v, %v", all, err)
	}
	if all, err := s.Nodes(ctx); err != nil || len(all) != 1 || all[0].GetVersion() != "v" {
		t.Errorf("nodes %v, %v", all, err)
	}
	if b, err := s.Facts().Get(ctx, "facts-1.x"); err != nil || string(b) != "facts" {
		t.Errorf("facts %q, %v", b, err)
	}
	if have, _ := s.Objects.Has(digest([]byte("an object"))); !have {
		t.Error("the object is gone")
	}
	if tok, err := s.UseToken(ctx, "hash", "n1", time.Now()); err != nil || tok.Role != "agent" {
		t.Errorf("token %+v, %v", tok, err)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Config{Dir: dir})
	if err := fill(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	check(t, open(t, store.Config{Dir: dir}))
}

// TestKilled has a process keep things and die by SIGKILL.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the victim was not killed: %v, %s", err, out)
	}
	s := open(t, store.Config{Dir: dir})
	check(t, s)
	// The upload goes on where it was.
	content := bytes.Repeat([]byte("0123456789"), 1000)
	have, offset := s.Objects.Has(digest(content))
	if have || offset != 4000 {
		t.Fatalf("upload: %v, %d bytes are there", have, offset)
	}
	u, err := s.Objects.Begin(digest(content), int64(len(content)), offset)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(content[offset:]); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.InterruptRuns(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runs, err := s.Runs(t.Context()); err != nil || len(runs) != 1 || runs[0].State != store.RunInterrupted {
		t.Errorf("runs %+v, %v", runs, err)
	}
}

func TestOneProcessAlone(t *testing.T) {
	dir := t.TempDir()
	open(t, store.Config{Dir: dir})
	if _, err := store.Open(t.Context(), store.Config{Dir: dir}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := store.Open(t.Context(), store.Config{}); err == nil {
		t.Error("opened without a folder")
	}
}

func TestSummariesNewestFirst(t *testing.T) {
	s := open(t, store.Config{})
	for i, id := range []string{"b", "c", "a"} {
		r, line := result(id, time.Unix(int64(i), 0))
		if err := s.PutResult(t.Context(), r, line); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Summaries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range all {
		got += p.GetId()
	}
	if got != "acb" {
		t.Errorf("order %s, want acb", got)
	}
}

func TestUnknownKeys(t *testing.T) {
	s := open(t, store.Config{})
	for _, id := range []string{"nothing", "", "..", "a b", "docker.io/library/redis:latest", "*", ">", strings.Repeat("x", 5000)} {
		if r, err := s.Result(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Result(%.40q) = %v, %.200v; want ErrNotFound", id, r, err)
		}
	}
	if b, err := s.Facts().Get(t.Context(), "nothing"); b != nil || err != nil {
		t.Errorf("facts %q, %v", b, err)
	}
}

// TestTokenIsSpentOnce has many use one token at the same time.
func TestTokenIsSpentOnce(t *testing.T) {
	s := open(t, store.Config{})
	ctx, now := t.Context(), time.Now()
	if err := s.PutToken(ctx, "h", store.Token{Role: "agent", Expires: now.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UseToken(ctx, "h", "late", now.Add(time.Hour)); !errors.Is(err, store.ErrTokenExpired) {
		t.Errorf("late: %v", err)
	}
	if _, err := s.UseToken(ctx, "other", "x", now); !errors.Is(err, store.ErrTokenUnknown) {
		t.Errorf("unknown: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.UseToken(ctx, "h", fmt.Sprint("n", i), now) })
	}
	wg.Wait()
	spent := 0
	for _, err := range errs {
		switch {
		case err == nil:
			spent++
		case !errors.Is(err, store.ErrTokenUsed):
			t.Error(err)
		}
	}
	if spent != 1 {
		t.Errorf("spent %d times", spent)
	}
	if err := s.PutToken(ctx, "h", store.Token{}); err == nil {
		t.Error("a token was replaced")
	}
}

func TestFactsCacheForgets(t *testing.T) {
	s := open(t, store.Config{MaxFacts: 1 << 20})
	ctx := t.Context()
	value := bytes.Repeat([]byte("f"), 100<<10)
	const n = 30
	for i := range n {
		if err := s.Facts().Put(ctx, fmt.Sprint("k", i), value); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if b, err := s.Facts().Get(ctx, fmt.Sprint("k", n-1)); err != nil || !bytes.Equal(b, value) {
		t.Errorf("the newest: %d bytes, %v", len(b), err)
	}
	if b, err := s.Facts().Get(ctx, "k0"); err != nil || b != nil {
		t.Errorf("the oldest: %d bytes, %v", len(b), err)
	}
	if err := s.Facts().Put(ctx, "big", make([]byte, 31<<20)); err != nil {
		t.Errorf("too large a value: %v, want nothing", err)
	}
}
