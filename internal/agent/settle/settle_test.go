package settle

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/confinehq/confine/internal/agent/netns"
)

// long is a time that no test waits for.
const long = 5 * time.Minute

// process runs a program of busybox in a network namespace of its own.
func process(t *testing.T, argv ...string) Container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	cmd := exec.Command("/bin/busybox", argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	ns, err := netns.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	if err := ns.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	return Container{PID: cmd.Process.Pid, Net: ns, Exited: exited, LastNew: func() time.Time { return began }}
}

// server starts to listen on a port.
func server(t *testing.T, port string) Container {
	return process(t, "sh", "-c", "read x; exec /bin/busybox httpd -f -p "+port+" -h /")
}

// listens returns when the container listens: what nothing is known to wait
// for counts as deaf after three times the quiet time, however short that is.
func listens(t *testing.T, c Container) Container {
	t.Helper()
	for len(Listening(c.PID)) == 0 {
		select {
		case <-c.Exited:
			t.Fatal("the server ended")
		case <-time.After(time.Millisecond):
		}
	}
	return c
}

func mustSettle(t *testing.T, c Container, times Times) Outcome {
	t.Helper()
	out, err := Wait(t.Context(), c, times)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPortThatAnswers(t *testing.T) {
	c := server(t, "8080")
	c.Ports = []uint16{80, 8080}
	out := mustSettle(t, c, Times{Limit: long, Quiet: time.Millisecond})
	if out.Kind != Port || out.Text != "port 8080 answered, quiet for 1ms" || out.WorkloadErr != nil {
		t.Errorf("%+v", out)
	}
}

func TestPortsThatNobodyNamed(t *testing.T) {
	for name, ports := range map[string][]uint16{"none exposed": nil, "another exposed": {80}} {
		c := listens(t, server(t, "8080"))
		c.Ports = ports
		if out := mustSettle(t, c, Times{Limit: long, Quiet: time.Millisecond}); out.Kind != Listen || !strings.HasPrefix(out.Text, "port 8080 listens") {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

// TestPortThatNeverAnswers waits until the limit.
func TestPortThatNeverAnswers(t *testing.T) {
	c := process(t, "sh", "-c", "read x; exec /bin/busybox sleep 1000")
	c.Ports = []uint16{8080}
	if out := mustSettle(t, c, Times{Limit: 300 * time.Millisecond, Quiet: time.Millisecond}); out.Kind != Limit {
		t.Errorf("%+v", out)
	}
}

func TestDeafContainer(t *testing.T) {
	c := process(t, "sh", "-c", "read x; exec /bin/busybox sleep 1000")
	if out := mustSettle(t, c, Times{Limit: long, Quiet: 10 * time.Millisecond}); out.Kind != Quiet {
		t.Errorf("%+v", out)
	}
}

func TestEndOfTheProcess(t *testing.T) {
	c := process(t, "sh", "-c", "read x; exit 3")
	c.Ports = []uint16{8080}
	if out := mustSettle(t, c, Times{Limit: long, Quiet: long}); out.Kind != Exited {
		t.Errorf("%+v", out)
	}
	// Also when it was ready and ends before it was quiet.
	c = process(t, "sh", "-c", "read x; exit 3")
	c.Health = func(context.Context) error { return nil }
	if out := mustSettle(t, c, Times{Limit: long, Quiet: long}); out.Kind != Exited {
		t.Errorf("%+v", out)
	}
}

// TestNewFilesPutQuietOff has files appear all the time, until none does.
func TestNewFilesPutQuietOff(t *testing.T) {
	c := server(t, "8080")
	asked := 0
	var last time.Time
	c.LastNew = func() time.Time {
		if asked++; asked <= 10 {
			last = time.Now()
		}
		return last
	}
	if out := mustSettle(t, c, Times{Limit: long, Quiet: 100 * time.Millisecond}); out.Kind != Listen || asked <= 10 {
		t.Errorf("%+v after %d looks", out, asked)
	}
	c.LastNew = time.Now
	if out := mustSettle(t, c, Times{Limit: 300 * time.Millisecond, Quiet: 100 * time.Millisecond}); out.Kind != Limit || out.Text != "limit" {
		t.Errorf("%+v", out)
	}
}

func TestHealthcheckCountsBeforePorts(t *testing.T) {
	c := server(t, "8080")
	c.Ports = []uint16{8080}
	tries := 0
	c.Health = func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	if out := mustSettle(t, c, Times{Limit: long, Quiet: time.Millisecond}); out.Kind != Health || tries != 3 {
		t.Errorf("%+v after %d tries", out, tries)
	}
}

// TestWorkload runs once, when the container is ready; its failure is told,
// and what it makes the container do puts the quiet off.
func TestWorkload(t *testing.T) {
	failure := errors.New("no")
	for _, want := range []error{nil, failure} {
		c := server(t, "8080")
		c.Ports = []uint16{8080}
		runs := 0
		var listening []uint16
		c.Workload = func(context.Context) error {
			runs++
			listening = Listening(c.PID)
			return want
		}
		out := mustSettle(t, c, Times{Limit: long, Quiet: time.Millisecond})
		if out.Kind != Workload || !errors.Is(out.WorkloadErr, want) || runs != 1 || !slices.Equal(listening, []uint16{8080}) {
			t.Errorf("%+v, %d runs, ports %v", out, runs, listening)
		}
	}
}

// TestWorkloadThatHangs is cut off by the limit and by the end of the run.
func TestWorkloadThatHangs(t *testing.T) {
	c := server(t, "8080")
	c.Workload = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	out := mustSettle(t, c, Times{Limit: 300 * time.Millisecond, Quiet: time.Millisecond})
	if out.Kind != Limit || out.WorkloadErr == nil {
		t.Errorf("%+v", out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Workload = func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }
	if _, err := Wait(ctx, c, Times{Limit: long, Quiet: long}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestAttached doesn't wait for readiness.
func TestAttached(t *testing.T) {
	began := time.Now()
	out := mustSettle(t, Container{PID: os.Getpid(), Ports: []uint16{1}, LastNew: func() time.Time { return began }}, Times{Limit: long, Quiet: time.Millisecond})
	if out.Kind != Quiet || out.Text != "attached, quiet for 1ms" {
		t.Errorf("%+v", out)
	}
}

func TestParseListening(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000
   1: 0100007F:1F91 0100007F:0050 01 00000000:00000000
   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A
   3: nonsense
   4: 0100007F:GGGG 00000000:0000 0A
`
	if got, want := parseListening(strings.NewReader(table)), []uint16{8080, 80}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
