package agent

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/confinehq/confine/internal/agent/observe"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// observation puts together what the server gets of the first run.
func (r *run) observation(image *runner.Image, seen *observed) *confinev1.Observation {
	o := &confinev1.Observation{
		Image:   imageInfo(image, seen),
		Run:     runInfo(seen),
		Files:   seen.files,
		Monitor: seen.monitor,
	}
	floorInfo, missing := r.floor(seen)
	o.Runtime = floorInfo
	o.Notes = slices.Concat(seen.notes, limits(seen))
	o.Incomplete = slices.Concat(seen.incomplete, unsettled(seen), missing)
	return o
}

// limits says what the monitor could not see.
func limits(seen *observed) []*confinev1.Incomplete {
	var out []*confinev1.Incomplete
	for _, note := range slices.Concat(seen.limits, seen.snapshot.GetNotes()) {
		out = append(out, &confinev1.Incomplete{Kind: "monitor-limit", Object: seen.monitor, Detail: note})
	}
	if names := seen.snapshot.GetUnseenMappings(); len(names) > 0 {
		const most = 5
		text := strings.Join(names[:min(len(names), most)], ", ")
		if len(names) > most {
			text += fmt.Sprintf(" and %d more", len(names)-most)
		}
		out = append(out, &confinev1.Incomplete{Kind: "monitor-limit", Object: seen.monitor, Detail: "processes of " + text + " ended before it could be seen what they had mapped: of libraries that they load by computed names, only those that other processes were seen to load are included; monitor ebpf sees them all"})
	}
	return out
}

// unsettled says that a container had not settled when its time was up.
func unsettled(seen *observed) []*confinev1.Incomplete {
	if seen.outcome.Kind != settle.Limit {
		return nil
	}
	return []*confinev1.Incomplete{{
		Kind: "not-settled", Object: seen.container,
		Detail: "the time was up before the container was ready and quiet; give it more with --timeout",
	}}
}

func imageInfo(image *runner.Image, seen *observed) *confinev1.ImageInfo {
	info := &confinev1.ImageInfo{ContainerId: seen.container, Platform: platform()}
	if p := seen.spec.Process; p != nil {
		info.Args, info.Env, info.WorkingDir = p.Args, p.Env, p.Cwd
		info.User = strconv.Itoa(int(p.User.UID)) + ":" + strconv.Itoa(int(p.User.GID))
	}
	if image == nil {
		return info
	}
	info.Image, info.Digest = image.Name, image.Digest
	if image.Platform != "" {
		info.Platform = image.Platform
	}
	for port := range image.Config.ExposedPorts {
		info.ExposedPorts = append(info.ExposedPorts, port)
	}
	slices.Sort(info.ExposedPorts)
	info.Healthcheck = image.Config.Healthcheck.Args()
	return info
}

func runInfo(seen *observed) *confinev1.Run {
	run := &confinev1.Run{
		Events: uint32(min(happened(seen.snapshot), 1<<32-1)), Lost: uint32(min(seen.snapshot.GetLost(), 1<<32-1)),
		SettledBy: seen.outcome.Text, Seconds: seen.seconds, ExitCode: seen.exitCode,
	}
	run.Recorded = recorded(seen.snapshot, seen.outside)
	if seen.exitCode != nil && *seen.exitCode != 0 {
		run.Output = seen.output
	}
	return run
}

// recorded names the calls that each process image made, those left out that
// came from outside.
func recorded(snap *confinev1.SnapshotResponse, outside map[string]bool) []*confinev1.Recorded {
	var out []*confinev1.Recorded
	for _, rec := range snap.GetRecorded() {
		if outside[rec.GetProcess()] {
			continue
		}
		out = append(out, &confinev1.Recorded{
			Path:     rec.GetProcess(),
			Syscalls: callNames(nativeArch(), rec.GetNrs()),
			Compat:   callNames(syscalls.I386, rec.GetCompatNrs()),
		})
	}
	return out
}

// happened is the number of events that a monitor told or counted.
func happened(snap *confinev1.SnapshotResponse) uint64 {
	r := snap.GetRepeated()
	return snap.GetEvents() + r.GetExecs() + r.GetMappings() + r.GetExits()
}

// nativeArch is the table of this machine's own calls.
func nativeArch() syscalls.Arch {
	arch, _ := syscalls.ForPlatform(platform())
	return arch
}

func callName(arch syscalls.Arch, nr int32) string {
	if name, ok := syscalls.Name(arch, int(nr)); ok {
		return name
	}
	return "syscall_" + strconv.Itoa(int(nr))
}

func callNames(arch syscalls.Arch, nrs []int32) []string {
	var names []string
	for _, nr := range nrs {
		names = append(names, callName(arch, nr))
	}
	slices.Sort(names)
	return names
}

// deniedCalls is what the filter refused, by name: as the final snapshot
// counts it, or as the events told when the monitor's snapshots hold none.
func deniedCalls(snap *confinev1.SnapshotResponse, c *observe.Collector) []*confinev1.Denied {
	calls, counts := c.Refused()
	if final := snap.GetDenied(); len(final) > 0 {
		calls, counts = final, nil
		for _, d := range final {
			counts = append(counts, uint32(min(max(d.GetCount(), 1), math.MaxUint32)))
		}
	}
	var out []*confinev1.Denied
	for i, d := range calls {
		arch := nativeArch()
		if compat(d.GetArch()) {
			arch = syscalls.I386
		}
		caller := ""
		if d.GetObject() != "" {
			caller = d.GetObject() + "+0x" + strconv.FormatUint(d.GetOffset(), 16)
		}
		process := d.GetProcess()
		if process == "" {
			process = "(container runtime)"
		}
		name := callName(arch, d.GetNr())
		out = append(out, &confinev1.Denied{
			Name: name, Nr: d.GetNr(), Process: process, Caller: caller,
			Count: counts[i], Pid: d.GetPid(), Args: d.GetArgs(), Text: syscalls.Format(arch, name, d.GetArgs()),
		})
	}
	slices.SortStableFunc(out, func(a, b *confinev1.Denied) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// compat reports whether an AUDIT_ARCH value is the 32-bit table on a 64-bit
// machine.
func compat(arch uint32) bool {
	const (
		audit64    = 0x80000000 // __AUDIT_ARCH_64BIT
		auditI386  = 0x40000003
		machine386 = 3
	)
	return arch != 0 && arch&audit64 == 0 && (arch == auditI386 || arch&0xffff == machine386)
}
