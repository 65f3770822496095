package observe

import (
	"os"
	"strconv"
	"strings"

	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// origins tells processes of a container from those that entered it from
// outside, as 'ctr task exec' and 'kubectl exec' do: their parent lives in the
// host's PID namespace, where a process of the container can't get, not even as
// an orphan. Where that can't be told, a process counts as the container's.
type origins struct {
	// first process of the container, never one from outside.
	first int32
	// space is the PID namespace of the container, 0 when it is the host's: then
	// nothing can be told.
	space uint64
	host  uint64
	// known holds what was found out of processes, by PID.
	known map[int32]member
}

// member is a process that is the container's, or descends from one that
// entered.
type member struct {
	root int32 // the one that entered, 0 for none
	// start tells it from others that have its number later.
	start uint64
}

func newOrigins(first int32) *origins {
	o := &origins{first: first, known: map[int32]member{}}
	o.host = procfs.Namespace(int32(os.Getpid()), "pid") // agents run in the host's
	if s := procfs.Namespace(first, "pid"); s != o.host {
		o.space = s
	}
	return o
}

// of returns the process that entered the container and that pid descends
// from, 0 when it is the container's own. origin is what the monitor says of
// that, 0 when it doesn't know; parent and boot (nanoseconds since boot, 0 when
// unknown) are of the moment of the event.
func (o *origins) of(pid, parent, origin int32, boot uint64) int32 {
	if pid <= 0 || pid == o.first {
		return 0
	}
	root := int32(0)
	switch {
	case origin == 0:
		root = o.find(pid, parent, boot)
	case origin != o.first:
		// At an attach, an orphan of the container may have come by itself.
		if m, ok := o.known[origin]; !ok || m.root != 0 {
			root = origin
		}
	}
	if len(o.known) >= maxProcesses {
		clear(o.known)
	}
	o.known[pid] = member{root, startOf(pid)}
	return root
}

// recall returns what is known of a process that runs.
func (o *origins) recall(pid int32) (m member, ok bool) {
	m, ok = o.known[pid]
	return m, ok && m.start != 0 && m.start == startOf(pid)
}

// find follows the parents of a process to one that is known, or to the host.
func (o *origins) find(pid, parent int32, boot uint64) int32 {
	if m, ok := o.recall(pid); ok {
		return m.root
	}
	if o.space == 0 || o.host == 0 {
		return 0
	}
	if now := parentOf(pid); now != 0 {
		parent, boot = now, 0
	} else if boot == 0 {
		return 0 // gone, and nobody knows what its parent's number meant
	}
	for at := pid; ; {
		if parent <= 0 || parent == o.first {
			return 0
		}
		if m, ok := o.recall(parent); ok {
			return m.root
		}
		switch procfs.Namespace(parent, "pid") {
		case 0:
			// It is gone, and its child has another parent now or is gone, too.
			again := parentOf(at)
			if again == parent || again == 0 {
				return 0
			}
			parent, boot = again, 0
			continue
		case o.host:
			// A number that belongs to another process by now proves nothing, nor
			// does the parent of the namespace's own first process.
			if startedAfter(parent, boot) || at != pid && firstOfSpace(at) {
				return 0
			}
			return at
		}
		if next := parentOf(parent); next != parent {
			at, parent, boot = parent, next, 0
			continue
		}
		return 0
	}
}

// tick is the unit of start times in /proc, USER_HZ.
const tick = 10_000_000 // ns

// startedAfter reports whether a process began after a moment, 0 for none.
func startedAfter(pid int32, boot uint64) bool {
	return boot != 0 && startOf(pid)*tick > boot
}

// startOf returns when a process began, in ticks since boot, 0 when it is gone.
func startOf(pid int32) uint64 {
	fields := procfs.Stat(pid)
	if len(fields) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// firstOfSpace reports whether a process is number 1 in its PID namespace; it
// is true, too, when that can't be told.
func firstOfSpace(pid int32) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/status")
	if err != nil {
		return true
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(ids)
			return len(fields) == 0 || fields[len(fields)-1] == "1"
		}
	}
	return true
}

// parentOf returns the parent of a process, 0 when it is gone.
func parentOf(pid int32) int32 {
	parent, _ := procfs.Parent(pid)
	return parent
}
