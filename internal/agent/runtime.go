package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

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

// floor returns the runtime with the calls that its init makes between loading
// the filter and execve of the entrypoint.
func (r *run) floor(seen *observed) (*confinev1.Runtime, []*confinev1.Incomplete) {
	info := &confinev1.Runtime{Name: seen.runtime.name, Sha256: seen.runtime.sha256, NoNewPrivs: !r.newPrivileges()}
	calls, err := r.measureFloor(seen)
	if err == nil {
		info.Floor = callNames(nativeArch(), calls)
		return info, nil
	}
	// Everything that the runtime's init was seen doing holds what it does
	// after loading the filter.
	for _, rec := range seen.snapshot.GetRecorded() {
		if rec.GetProcess() == "" {
			info.Floor = callNames(nativeArch(), rec.GetNrs())
		}
	}
	// The entrypoint's execve belongs to the image it makes.
	if nr, ok := syscalls.Number(nativeArch(), "execve"); ok {
		name := callName(nativeArch(), int32(nr))
		if !slices.Contains(info.Floor, name) {
			info.Floor = append(info.Floor, name)
			slices.Sort(info.Floor)
		}
	}
	return info, []*confinev1.Incomplete{{
		Kind: "floor-unmeasured", Object: info.Name,
		Detail: fmt.Sprintf("the calls that the container runtime makes under the filter could not be measured (%v); all calls of its start-up are allowed instead", err),
	}}
}

// measureFloor returns the numbers of the floor's calls.
func (r *run) measureFloor(seen *observed) ([]int32, error) {
	return nil, fmt.Errorf("not measured yet")
}
