package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// tracefs is where tools look for it.
const tracefs = "/sys/kernel/tracing"

// hasTracefs reports whether tracepoints can be found by their names.
func hasTracefs() bool {
	for _, dir := range []string{tracefs, "/sys/kernel/debug/tracing"} {
		if _, err := os.Stat(dir + "/events"); err == nil {
			return true
		}
	}
	return false
}

// privately makes a command run in a mount namespace of its own with tracefs
// in it, so that the node stays as it is.
func privately(cmd *exec.Cmd) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd.Args = append([]string{self, roleTracefs}, cmd.Args...)
	cmd.Path = self
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	return nil
}

// withTracefs mounts tracefs and executes a command. It returns only if that
// fails.
func withTracefs(argv []string) error {
	if len(argv) == 0 {
		return errors.New("no command")
	}
	if err := unix.Mount("tracefs", tracefs, "tracefs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w; do it on the node: mount -t tracefs tracefs %s", err, tracefs)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, argv, os.Environ())
}
