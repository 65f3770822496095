// Command goprobe uses what Go's packages try with a newer call first.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

func main() {
	if err := probe(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("all well")
}

func probe() error {
	var threads sync.WaitGroup
	for range 8 {
		threads.Go(func() { _, _ = exec.LookPath("true") })
	}
	threads.Wait()
	if out, err := exec.Command("/bin/true").CombinedOutput(); err != nil {
		return fmt.Errorf("run: %w: %s", err, out)
	}
	dir, err := os.MkdirTemp("", "goprobe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	from, err := os.Open("/etc/passwd")
	if err != nil {
		return err
	}
	to, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		return err
	}
	if n, err := io.Copy(to, from); err != nil || n == 0 {
		return fmt.Errorf("copy: %d, %w", n, err)
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return fmt.Errorf("random: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}()
	c, err := l.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return errors.Join(c.Close(), l.Close())
}
