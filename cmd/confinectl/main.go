// Command confinectl makes seccomp profiles of container images.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/confinehq/confine/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the job in good order, a second one at once.
	context.AfterFunc(ctx, stop)
	return cli.Main(ctx, os.Args[1:], cli.System())
}
