package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// stormLook is how often memory is looked at during a storm.
const stormLook = 50 * time.Millisecond

// sample is what processes use.
type sample struct {
	rss uint64 // KiB
	cpu time.Duration
}

func (s sample) plus(t sample) sample { return sample{s.rss + t.rss, s.cpu + t.cpu} }

// pair is an agent and one of its monitors, with what that started.
type pair struct{ agent, monitor sample }

// usage prints what an agent and a monitor use.
func usage(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("usage", flag.ContinueOnError)
	agent := f.Int("agent", 0, "`PID` of the agent")
	name := f.String("monitor", "", "`name` of the monitor, which it has started")
	idle := f.Duration("idle", 10*time.Second, "how long to look at them idle")
	heading := f.Bool("heading", false, "print a heading")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *agent == 0 || *name == "" || f.NArg() == 0 {
		return errors.New("want --agent PID, --monitor NAME and a command")
	}
	look := func() pair { return measure(*agent, "confine-monitor-"+*name) }
	if *heading {
		fmt.Printf("%-10s %-6s %9s %9s %9s  %s\n", "monitor", "when", "agent", "monitor", "together", "of a core")
	}
	before, began := look(), time.Now()
	if before.monitor.rss == 0 {
		return fmt.Errorf("agent %d runs no monitor %s", *agent, *name)
	}
	select {
	case <-time.After(*idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after := look()
	show(*name, "idle", before, after, after, time.Since(began))

	before, began = look(), time.Now()
	last, peak, err := during(exec.CommandContext(ctx, f.Arg(0), f.Args()[1:]...), look)
	show(*name, "storm", before, last, peak, time.Since(began))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		return nil // something was lost: that's for another table
	}
	return err
}

// during looks while a command runs; peak has the most memory of each.
func during(cmd *exec.Cmd, look func() pair) (last, peak pair, err error) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return last, peak, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		last = look()
		peak.agent.rss = max(peak.agent.rss, last.agent.rss)
		peak.monitor.rss = max(peak.monitor.rss, last.monitor.rss)
		select {
		case err := <-done:
			return last, peak, err
		case <-time.After(stormLook):
		}
	}
}

// show prints a line; sizes are in MB, as limits are stated.
func show(name, when string, before, after, size pair, took time.Duration) {
	cpu := after.agent.cpu + after.monitor.cpu - before.agent.cpu - before.monitor.cpu
	mb := func(kib uint64) float64 { return float64(kib) * 1024 / 1e6 }
	fmt.Printf("%-10s %-6s %6.1f MB %6.1f MB %6.1f MB  %.2f %%\n", name, when,
		mb(size.agent.rss), mb(size.monitor.rss), mb(size.agent.rss+size.monitor.rss), 100*cpu.Seconds()/took.Seconds())
}

// measure looks at an agent, and at a monitor of it with what that started.
func measure(agent int, monitor string) pair {
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range stats {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			parent, _ := procfs.Parent(int32(pid))
			parents[pid] = int(parent)
		}
	}
	out := pair{agent: of(agent)}
	for pid := range parents {
		for p, hops := pid, 0; p > 1 && hops < 64; p, hops = parents[p], hops+1 {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p))
			if filepath.Base(exe) == monitor && parents[p] == agent {
				out.monitor = out.monitor.plus(of(pid))
				break
			}
		}
	}
	return out
}

// of reads one process.
func of(pid int) sample { return sample{box.ResidentKiB(pid), processTime(pid)} }
