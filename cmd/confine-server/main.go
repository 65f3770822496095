// Command confine-server makes and keeps seccomp profiles with the help of
// agents.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/confinehq/confine/internal/server/servercmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := servercmd.New(os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "confine-server:", err)
		os.Exit(1)
	}
}
