package agent

import (
	"context"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func platform() string { return "linux/" + runtime.GOARCH }

// runtimeVersion returns name and version as the runtime prints them, in the
// form "runc 1.1.5"; "" when it doesn't run.
func runtimeVersion(ctx context.Context, binary string) string {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(strings.Replace(first, " version ", " ", 1))
}
