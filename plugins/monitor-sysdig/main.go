// Command confine-monitor-sysdig watches containers by driving sysdig: live
// where sysdig has a driver for the kernel, or replaying a trace that was
// recorded elsewhere. An agent starts it; it speaks the contract of package
// monitor.
package main

import (
	"os"

	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/monitor"
)

// roleCanary is the argument with which the program ends at once: its execution
// is to be seen.
const roleCanary = "canary"

func main() {
	if len(os.Args) > 1 && os.Args[1] == roleCanary {
		return
	}
	monitor.Serve(newBackend(version.String()), monitor.Needs(
		"CAP_BPF", "CAP_PERFMON", "CAP_SYS_RESOURCE", "CAP_SYS_ADMIN", // what sysdig does, live
		"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", // look into roots and /proc
	))
}
