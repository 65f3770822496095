// Command monitors holds monitors against each other, side by side on one
// machine. bench/run-monitors makes all of its tables.
//
//	monitors losses [--plugins DIR] [--rates 100,1000,5000,max] [--time 3s] [--execs N] MONITOR...
//	monitors cost [--plugins DIR] [--rounds N] [--execs N] [--calls N] MONITOR...
//	monitors usage --agent PID --monitor NAME [--idle 10s] -- COMMAND...
//
// losses prints, for each monitor and rate, how many executions a storm in a
// container made and what became of them. cost prints by how much a loop of
// executions, and one of system calls, is slower while it is watched, and while
// another container is: on a processor of its own, from when the watch has begun
// to before it ends. usage prints memory and processor time of an agent and
// a monitor, idle and while a command runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "monitors:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "losses":
			return losses(ctx, args[1:])
		case "cost":
			return cost(ctx, args[1:])
		case "usage":
			return usage(ctx, args[1:])
		}
	}
	return errors.New("want losses, cost or usage")
}
