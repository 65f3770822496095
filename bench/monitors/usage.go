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
	"strings"
	"time"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// tick is the unit of processor time in /proc, USER_HZ.
const tick = 10 * time.Millisecond

// sample is what processes use.
type sample struct {
	rss uint64 // KiB
	cpu time.Duration
}

// usage prints what an agent and its plugins use.
func usage(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("usage", flag.ContinueOnError)
	agent := f.Int("agent", 0, "`PID` of the agent")
	idle := f.Duration("idle", 10*time.Second, "how long to look at it idle")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *agent == 0 || f.NArg() == 0 {
		return errors.New("want --agent PID and a command")
	}
	before, began := measure(*agent), time.Now()
	select {
	case <-time.After(*idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after := measure(*agent)
	show("idle", before, after, after, time.Since(began))

	before, began = measure(*agent), time.Now()
	cmd := exec.CommandContext(ctx, f.Arg(0), f.Args()[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	peak := before
	for {
		select {
		case err := <-done:
			last := measure(*agent)
			for who, s := range last {
				p := peak[who]
				peak[who] = sample{max(p.rss, s.rss), max(p.cpu, s.cpu)}
			}
			show("storm", before, peak, peak, time.Since(began))
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 3 {
				return nil // something was lost: that's for another table
			}
			return err
		case <-time.After(50 * time.Millisecond):
			for who, s := range measure(*agent) {
				peak[who] = sample{max(peak[who].rss, s.rss), s.cpu}
			}
		}
	}
}

// show prints a line for each process and one for all.
func show(when string, before, after, size map[string]sample, took time.Duration) {
	var sum sample
	for _, who := range []string{"agent", "plugins"} {
		cpu := after[who].cpu - before[who].cpu
		sum.rss += size[who].rss
		sum.cpu += cpu
		fmt.Printf("  %-6s %-8s %6.1f MiB %7.2f %% of a core\n", when, who, float64(size[who].rss)/1024, 100*cpu.Seconds()/took.Seconds())
	}
	fmt.Printf("  %-6s %-8s %6.1f MiB %7.2f %% of a core\n", when, "both", float64(sum.rss)/1024, 100*sum.cpu.Seconds()/took.Seconds())
}

// measure looks at an agent, and at its monitors with what they started.
func measure(agent int) map[string]sample {
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range stats {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			parent, _ := procfs.Parent(int32(pid))
			parents[pid] = int(parent)
		}
	}
	out := map[string]sample{"agent": of(agent)}
	for pid := range parents {
		monitor := false
		for p, hops := pid, 0; p > 1 && p != agent && hops < 64; p, hops = parents[p], hops+1 {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p))
			monitor = monitor || strings.HasPrefix(filepath.Base(exe), "confine-monitor-")
			if parents[p] == agent && monitor {
				s := of(pid)
				out["plugins"] = sample{out["plugins"].rss + s.rss, out["plugins"].cpu + s.cpu}
			}
		}
	}
	return out
}

// of reads one process.
func of(pid int) (s sample) {
	if fields := procfs.Stat(int32(pid)); len(fields) > 12 {
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.cpu += time.Duration(n) * tick
		}
	}
	s.rss = box.ResidentKiB(pid)
	return s
}
