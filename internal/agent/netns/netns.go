// Package netns runs code and commands inside the network namespace of a
// container, without changing the namespace of any other goroutine.
package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that stays usable after its processes have
// ended, until Close.
type Namespace struct {
	file *os.File
}

// Of opens the network namespace of a process.
func Of(pid int) (*Namespace, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Namespace{file: f}, nil
}

// Close releases the namespace.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs f on a thread that is inside the namespace. The thread is never
// given back to other goroutines.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Not unlocked on purpose: the runtime ends the thread with the
		// goroutine, and with it the changed namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// LoopbackUp brings the interface lo up, so that 127.0.0.1 works.
func (n *Namespace) LoopbackUp() error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return fmt.Errorf("name interface lo: %w", err)
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return fmt.Errorf("read flags of lo: %w", err)
		}
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("bring lo up: %w", err)
		}
		return nil
	})
}

// Answers reports whether a TCP connection to the port succeeds on the
// namespace's own loopback addresses.
func (n *Namespace) Answers(ctx context.Context, port uint16) bool {
	err := n.Do(func() error {
		d := net.Dialer{Timeout: time.Second}
		var err error
		for _, host := range []string{"127.0.0.1", "::1"} {
			var c net.Conn
			// A literal address and one network: the dialer stays on this
			// thread.
			c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			if err == nil {
				return c.Close()
			}
		}
		return err
	})
	return err == nil
}

// Run starts cmd inside the namespace and waits for it.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	return n.Do(cmd.Run)
}
