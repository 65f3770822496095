// Command threadexec executes its arguments from another thread than the first.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

func init() { runtime.LockOSThread() } // main keeps the first thread

func main() {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		failed <- syscall.Exec(os.Args[1], os.Args[1:], nil)
	}()
	fmt.Fprintln(os.Stderr, <-failed)
	os.Exit(1)
}
