package storm

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What a storm says that it executed is what it was asked for.
func TestStorm(t *testing.T) {
	p := Default(t.TempDir(), "tk")
	p.Count = 3000
	truth := runStorm(t, p)
	if got := truth.Total(); got < p.Count || got > p.Count+uint64(p.Jobs*p.Depth) || truth.Failed > 0 {
		t.Errorf("%d executions and %d failures, want %d and a little", got, truth.Failed, p.Count)
	}
	for _, f := range p.files() {
		if truth.Executed[p.path(f)] == 0 {
			t.Errorf("%s %d was never executed", f.kind, f.index)
		}
	}
	long := p.path(file{"l", 0})
	if len(long) < maxPath-stepSize-16 || len(long) > maxPath {
		t.Errorf("the long path has %d bytes", len(long))
	}
}

// A rate is a rate: it isn't gone above.
func TestRate(t *testing.T) {
	p := Default(t.TempDir(), "tk")
	p.Rate, p.Time, p.Depth = 200, time.Second, 0
	truth := runStorm(t, p)
	if got := truth.Total(); got == 0 || got > 200+uint64(p.Jobs) {
		t.Errorf("%d executions in %v, want 200 at most", got, truth.Time)
	}
}

// An execution that fails is not among those that were made.
func TestFailures(t *testing.T) {
	p := Default(t.TempDir(), "tk")
	p.Count = 100
	if err := p.Prepare(p.Dir); err != nil {
		t.Fatal(err)
	}
	args := p.Args()
	args[3] = "other"
	q := p
	q.Token = "other"
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	truth, err := q.ReadTruth(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if truth.Failed == 0 || len(truth.Executed) > 0 {
		t.Errorf("%d failures and %v, of files that don't exist", truth.Failed, truth.Executed)
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	good := Default("/d", "tk")
	good.Count = 1
	for _, change := range []func(*Plan){
		func(p *Plan) { p.Dir = "d" }, func(p *Plan) { p.Token = "a/b" }, func(p *Plan) { p.Jobs = 0 },
		func(p *Plan) { p.Names = 0 }, func(p *Plan) { p.Names = maxFiles }, func(p *Plan) { p.Count = 0 },
		func(p *Plan) { p.Threads = 100 },
	} {
		p := good
		change(&p)
		if p.check() == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

func runStorm(t *testing.T, p Plan) *Truth {
	t.Helper()
	if err := p.Prepare(p.Dir); err != nil {
		t.Fatal(err)
	}
	args := p.Args()
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	truth, err := p.ReadTruth(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

func FuzzReadTruth(f *testing.F) {
	p := Plan{Dir: "/d", Token: "t", Jobs: 1, Names: 2, Longs: 1, Depth: 1, Threads: 2}
	whole := "n 0 3\nn 1 0\nl 0 1\nt 0 1\nh 0 1\nfailed 0\nns 5\nend\n"
	f.Add(whole)
	f.Add(strings.Replace(whole, "n 1 0", "n 0 3", 1))
	f.Add("n 0")
	f.Fuzz(func(t *testing.T, text string) {
		truth, err := p.ReadTruth(strings.NewReader(text))
		if (truth == nil) == (err == nil) {
			t.Fatalf("%v and %v", truth, err)
		}
		if truth != nil && len(truth.Executed) > len(p.files()) {
			t.Fatalf("more files than there are: %v", truth.Executed)
		}
	})
}
