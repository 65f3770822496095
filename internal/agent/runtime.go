package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/confinehq/confine/internal/agent/floor"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// runtimeInfo identifies the OCI runtime of a container.
type runtimeInfo struct {
	name   string
	sha256 string
}

// newPrivileges reports whether no_new_privs is to be off.
func (r *run) newPrivileges() bool { return r.spec.GetAllowNewPrivs() && !r.spec.GetNoNewPrivs() }

// runtimeOf identifies the runtime by the program that the container's first
// process still runs before it executes the entrypoint. The runtime may run
// from a sealed copy of itself, so the content counts, not the path.
func (r *run) runtimeOf(ctx context.Context, pid int) (runtimeInfo, error) {
	info := runtimeInfo{name: runtimeVersion(ctx, r.agent.cfg.Runtime)}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return info, fmt.Errorf("open the runtime of process %d: %w", pid, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return info, fmt.Errorf("read the runtime of process %d: %w", pid, err)
	}
	info.sha256 = hex.EncodeToString(h.Sum(nil))
	return info, nil
}

// measuring is a floor on its way.
type measuring struct {
	done  chan struct{}
	calls []int32
	err   error
}

// measureFloor finds the floor of a container's runtime, beside the run when
// it has to be measured. binary is the runtime's name or path.
func (r *run) measureFloor(ctx context.Context, binary string, seen *observed) *measuring {
	m := &measuring{done: make(chan struct{})}
	sum, spec := seen.runtime.sha256, seen.spec
	key := floor.Key{Runtime: sum, NoNewPrivs: seen.noNewPrivs, Kernel: kernelRelease(), Arch: string(nativeArch())}
	go func() {
		defer close(m.done)
		m.calls, m.err = r.agent.floors.Do(key, r.spec.GetNoCache(), func() ([]int32, error) {
			path, found, err := findRuntime(binary)
			if err != nil {
				return nil, err
			}
			if found != sum {
				return nil, fmt.Errorf("%s is not the runtime that containerd used; name the right one with --runtime", path)
			}
			return floor.Measure(ctx, path, r.agent.measureDir(), spec)
		})
	}()
	return m
}

// measureDir is where floors are measured.
func (a *Agent) measureDir() string { return filepath.Join(a.cfg.StateDir, "measure") }

// floorOfBinary is measureFloor for a container whose start nobody watched: its
// runtime is taken to be the binary as it is now.
func (r *run) floorOfBinary(ctx context.Context, binary string, seen *observed) *measuring {
	seen.runtime.name = runtimeVersion(ctx, binary)
	_, sum, err := findRuntime(binary)
	if err != nil {
		m := &measuring{done: make(chan struct{}), err: err}
		close(m.done)
		return m
	}
	seen.runtime.sha256 = sum
	return r.measureFloor(ctx, binary, seen)
}

// findRuntime returns the path of a binary and its hex SHA-256.
func findRuntime(name string) (path, sum string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		return "", "", fmt.Errorf("find the runtime: %w; name the binary that containerd uses with --runtime", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("open the runtime: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", "", fmt.Errorf("read the runtime: %w", err)
	}
	return path, hex.EncodeToString(h.Sum(nil)), nil
}

// floor returns the runtime with the calls that its init makes between loading
// the filter and execve of the entrypoint.
func (r *run) floor(seen *observed) (*confinev1.Runtime, []*confinev1.Incomplete) {
	info := &confinev1.Runtime{Name: seen.runtime.name, Sha256: seen.runtime.sha256, NoNewPrivs: seen.noNewPrivs}
	if seen.floor == nil {
		return info, nil
	}
	<-seen.floor.done
	if seen.floor.err == nil {
		info.Floor = callNames(nativeArch(), seen.floor.calls)
		return info, nil
	}
	instead := "all calls of its start-up are allowed instead"
	if info.Floor = widestFloor(seen.snapshot); len(info.Floor) == 0 {
		instead = "the profile lacks them, so that a container may not start under it"
	}
	return info, []*confinev1.Incomplete{{
		Kind: "floor-unmeasured", Object: info.Name,
		Detail: fmt.Sprintf("the calls that the container runtime makes under the filter could not be measured (%v); %s", seen.floor.err, instead),
	}}
}

// widestFloor is everything that the runtime's init was seen doing from the
// beginning of the watch. It lacks what a runtime without no_new_privs does
// before it waits for the start. It is nil when the start wasn't watched.
func widestFloor(snap *confinev1.SnapshotResponse) []string {
	var calls []int32
	for _, rec := range snap.GetRecorded() {
		if rec.GetProcess() == "" {
			calls = append(calls, rec.GetNrs()...)
		}
	}
	if calls == nil {
		return nil
	}
	if nr, ok := syscalls.Number(nativeArch(), "execve"); ok && !slices.Contains(calls, int32(nr)) {
		calls = append(calls, int32(nr))
	}
	return callNames(nativeArch(), calls)
}
