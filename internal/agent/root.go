package agent

import (
	"fmt"
	"os"
	"strconv"

	"github.com/confinehq/confine/pkg/rootfs"
)

// heldRoot is the root of a container as its processes see it, mounts
// included. It stays readable after the container has ended: the open mount
// namespace keeps its mounts, and the kernel drops them with this process.
type heldRoot struct {
	*rootfs.Dir
	namespace *os.File
}

// holdRoot opens the root of a process. The runtime has changed into the
// container's root already when a task is created.
func holdRoot(pid int) (*heldRoot, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	ns, err := os.Open(proc + "/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	dir, err := rootfs.NewDir(proc + "/root")
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	return &heldRoot{Dir: dir, namespace: ns}, nil
}

// Close lets the kernel drop the container's mounts.
func (h *heldRoot) Close() {
	_ = h.Dir.Close()
	_ = h.namespace.Close()
}
