// Command odd executes programs in ways that aren't usual. It is static, and
// runs inside of test containers.
//
//	odd memory FILE TAIL NAME...    from memory: a copy of FILE and TAIL
//	odd unlinked FILE TAIL NAME...  the same from a file without a name
//	odd mounts FILE TAIL NAME...    the same in mounts and processes of its own
//	odd script                      executes an unlinked script
//	odd chroot DIR FILE NAME...
//	odd bomb                        makes processes until it can't
//	odd wait                        does nothing for long
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "odd:", err)
		os.Exit(1)
	}
}

func run(mode string, args []string) error {
	switch mode {
	case "memory":
		fd, err := unix.MemfdCreate("in/memory", 0)
		if err != nil {
			return err
		}
		if err := fill(os.NewFile(uintptr(fd), "memory"), args[0], args[1]); err != nil {
			return err
		}
		return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), args[2:], nil)
	case "unlinked":
		return unlinked("/tmp/unlinked", args)
	case "script":
		if err := os.WriteFile("/tmp/script", []byte("#!/bin/sh\nsleep 1000\n"), 0o755); err != nil {
			return err
		}
		f, err := os.Open("/tmp/script")
		if err != nil {
			return err
		}
		if err := os.Remove("/tmp/script"); err != nil {
			return err
		}
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return err
		}
		return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"script"}, nil)
	case "mounts":
		cmd := exec.Command("/proc/self/exe", append([]string{"mounted"}, args...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		return cmd.Run()
	case "mounted":
		if err := unix.Mount("none", "/mnt", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		path := "/mnt/nested"
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if err := fill(f, args[0], args[1]); err != nil {
			return err
		}
		f.Close()
		return syscall.Exec(path, args[2:], nil)
	case "chroot":
		if err := syscall.Chroot(args[0]); err != nil {
			return err
		}
		if err := os.Chdir("/"); err != nil {
			return err
		}
		return syscall.Exec(args[1], args[2:], nil)
	case "bomb":
		return bomb()
	case "wait":
		time.Sleep(time.Hour)
	}
	return nil
}

// fill writes a copy of a file and some more.
func fill(f *os.File, from, tail string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, tail...))
	return err
}

func unlinked(path string, args []string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if err := fill(f, args[0], args[1]); err != nil {
		return err
	}
	f.Close()
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), args[2:], nil)
}

// bomb starts copies of itself under many names, which start others, for ever.
func bomb() error {
	for n := 0; ; n++ {
		name := filepath.Join("/tmp", strings.Repeat("b", 1+n%50))
		_ = os.Link("/bin/odd", name)
		cmd := exec.Command(name, "bomb")
		if err := cmd.Start(); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}
