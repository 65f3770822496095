// Command confine-monitor-execsnoop watches containers by driving execsnoop:
// that of libbpf-tools, of bpftrace or of bcc, whichever is there and works.
// An agent starts it; it speaks the contract of package monitor.
package main

import (
	"fmt"
	"os"

	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/monitor"
)

// Roles in which the program starts itself.
const (
	roleCanary  = "canary"       // ends at once: its execution is to be seen
	roleTracefs = "with-tracefs" // mounts tracefs for itself, then becomes the rest
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case roleCanary:
			return
		case roleTracefs:
			fmt.Fprintln(os.Stderr, withTracefs(os.Args[2:]))
			os.Exit(1)
		}
	}
	monitor.Serve(newBackend(version.String()), monitor.Needs(
		"CAP_BPF", "CAP_PERFMON", "CAP_SYS_RESOURCE", // what the tool does
		"CAP_SYS_ADMIN",                         // tracefs is root's, and may have to be mounted
		"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", // completion from /proc
	))
}
