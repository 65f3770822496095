package main_test

import (
	"context"
	"errors"
	"strconv"
	"syscall"
	"testing"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// What doesn't fit into the ring buffer is counted: every event is either
// delivered or lost.
func TestLossesAreCounted(t *testing.T) {
	const count, jobs = 500, 2
	client := startWith(t, map[string]string{"ring-bytes": "4096"})
	storm := compile(t, "storm.c", "-static")
	tr := newTree(t, nil, storm, strconv.Itoa(count), strconv.Itoa(jobs), compile(t, "nop.c", "-static"))
	s := observe(t, client, &confinev1.Scope{Pid: tr.pid()}, func() {
		// The plugin can't read meanwhile.
		if err := syscall.Kill(client.PID(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		tr.run()
		if err := syscall.Kill(client.PID(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	})
	lost := s.snapshot.GetLost()
	if lost == 0 {
		t.Fatal("nothing lost with a buffer of a page")
	}
	var told uint64
	for _, l := range s.lost {
		told += l.GetCount()
	}
	// The stream may end before it has told the last ones.
	if told > lost {
		t.Errorf("%d losses told, %d in the snapshot", told, lost)
	}
	// The storm itself and what it executes, and each one's end; the record
	// that names the program which ran before the watch isn't an event.
	want := uint64(1+count) + uint64(1+jobs+count)
	seen := uint64(len(s.execs) + len(s.exits) + len(s.mappings))
	if sum := seen + lost; sum != want && sum != want+1 {
		t.Errorf("%d events seen and %d lost, want %d together", seen, lost, want)
	}
	if seen != s.snapshot.GetEvents() {
		t.Errorf("%d events seen, the snapshot says %d", seen, s.snapshot.GetEvents())
	}
}

func TestWrongRingSize(t *testing.T) {
	if _, err := startWith(t, map[string]string{"ring-bytes": "5000"}).Describe(context.Background()); err == nil {
		t.Error("a ring buffer of 5000 bytes was accepted")
	}
}

// A plugin that dies in the middle of a watch ends it with an error.
func TestKilledPlugin(t *testing.T) {
	client := start(t)
	tr := newTree(t, nil, "/bin/true")
	w, err := client.Watch(context.Background(), &confinev1.Scope{Pid: tr.pid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(client.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range w.Events() {
	}
	if !errors.Is(w.Err(), monitor.ErrEnded) || !errors.Is(client.Err(), monitor.ErrEnded) {
		t.Errorf("watch ended with %v, client with %v; want ErrEnded", w.Err(), client.Err())
	}
	if _, err := client.Describe(context.Background()); !errors.Is(err, monitor.ErrEnded) {
		t.Errorf("describe: %v, want ErrEnded", err)
	}
}

// Nobody but the one who started a plugin can talk to it, and no other file
// than the pinned one is started.
func TestPinnedPlugin(t *testing.T) {
	needKernel(t)
	c, err := monitor.Start(context.Background(), monitor.HostConfig{Path: plugin, SHA256: emptySHA256})
	if err == nil {
		c.Close()
		t.Error("a plugin with another checksum was started")
	}
}

// emptySHA256 is the digest of nothing.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Watches of one plugin don't see each other's events.
func TestWatchesAtOnce(t *testing.T) {
	client := start(t)
	a, b := compile(t, "nop.c", "-static"), compile(t, "nop.c", "-static")
	ta, tb := newTree(t, nil, a), newTree(t, nil, b)
	var inner *seen
	outer := observe(t, client, &confinev1.Scope{Pid: ta.pid()}, func() {
		inner = observe(t, client, &confinev1.Scope{Pid: tb.pid()}, func() { ta.run(); tb.run() })
	})
	outer.lossless(t)
	inner.lossless(t)
	if outer.executed()[a] != 1 || outer.executed()[b] != 0 || inner.executed()[b] != 1 || inner.executed()[a] != 0 {
		t.Errorf("watches saw %v and %v", outer.names(), inner.names())
	}
}
