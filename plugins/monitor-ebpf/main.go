// Command confine-monitor-ebpf watches containers with eBPF: tracepoints with
// BTF arguments, filtered in the kernel. An agent starts it; it speaks the
// contract of package monitor.
package main

import (
	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/monitor"
)

func main() {
	monitor.Serve(newBackend(version.String()), monitor.Needs(
		"CAP_BPF", "CAP_PERFMON", // load and attach programs that read kernel memory
		"CAP_SYS_PTRACE",      // look into /proc/PID of any process
		"CAP_DAC_READ_SEARCH", // read what only a container's user may
	))
}
