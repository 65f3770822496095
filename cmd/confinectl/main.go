// Command confinectl makes seccomp profiles of container images.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"github.com/confinehq/confine/internal/cli"
	"github.com/confinehq/confine/internal/standalone"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the job in good order, a second one at once.
	context.AfterFunc(ctx, stop)
	env := cli.System()
	env.Standalone = func(ctx context.Context, o cli.StandaloneOptions) (grpc.ClientConnInterface, io.Closer, error) {
		return standalone.Start(ctx, standalone.Options(o))
	}
	return cli.Main(ctx, os.Args[1:], env)
}
