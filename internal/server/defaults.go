package server

import (
	"runtime"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/confinehq/confine/pkg/syscalls"
)

// dockerCapabilities are those that a container has unless told otherwise, by
// containerd's oci package; the default profile depends on them.
func dockerCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// defaultCalls counts the calls that containerd's default profile allows on an
// architecture; 0 when it can't be told: containerd makes it for the machine
// that it runs on.
func defaultCalls(arch syscalls.Arch) int {
	if string(arch) != runtime.GOARCH {
		return 0
	}
	caps := dockerCapabilities()
	profile := seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
		Bounding: caps, Effective: caps, Permitted: caps,
	}}})
	var names []string
	for _, rule := range profile.Syscalls {
		if rule.Action != specs.ActAllow {
			continue
		}
		for _, name := range rule.Names {
			if _, ok := syscalls.Number(arch, name); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return len(slices.Compact(names))
}
