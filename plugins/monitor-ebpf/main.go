// Command confine-monitor-ebpf watches containers with eBPF: tracepoints with
// BTF arguments, filtered in the kernel. An agent starts it; it speaks the
// contract of package monitor.
package main

import (
	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/monitor"
)

func main() {
	monitor.Serve(newBackend(version.String()))
}
