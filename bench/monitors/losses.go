package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/internal/storm"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// patience is how long a monitor may take to tell the last events.
const patience = 2 * time.Minute

// outcome is what became of the executions of one storm.
type outcome struct {
	storm.Comparison
	// rate is executions a second that were reached.
	rate float64
	// admitted is what the monitor says it lost, executions and others.
	admitted uint64
	// madeUp names some files that were seen and not executed.
	madeUp []string
}

// mostMadeUp is how many of these are named.
const mostMadeUp = 3

func losses(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("losses", flag.ContinueOnError)
	plugins := f.String("plugins", "bin/plugins", "`folder` of the monitors")
	rates := f.String("rates", "100,1000,5000,max", "executions a second, `list`")
	length := f.Duration("time", 3*time.Second, "how long each storm lasts")
	execs := f.Uint64("execs", 0, "end the storm at the highest rate after so `many` executions instead")
	if err := f.Parse(args); err != nil {
		return err
	}
	fmt.Printf("%-10s %8s %10s %9s %9s %9s %9s %9s\n", "monitor", "wanted/s", "reached/s", "executed", "missed", "admitted", "twice", "made up")
	for _, name := range f.Args() {
		if err := stormAll(ctx, *plugins, name, strings.Split(*rates, ","), *length, *execs); err != nil {
			fmt.Printf("%-10s %v\n", name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// stormAll holds one monitor against storms of several rates.
func stormAll(ctx context.Context, plugins, name string, rates []string, length time.Duration, execs uint64) error {
	client, err := monitor.Start(ctx, monitor.HostConfig{Path: filepath.Join(plugins, "confine-monitor-"+name)})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Describe(ctx); err != nil {
		return err
	}
	for _, rate := range rates {
		plan := storm.Default("", "bench")
		plan.Jobs, plan.Time = 2*runtime.NumCPU(), length
		if rate != "max" {
			n, err := strconv.ParseUint(rate, 10, 32)
			if err != nil {
				return fmt.Errorf("rate %q: %w", rate, err)
			}
			plan.Rate = uint32(n)
		} else if execs > 0 {
			plan.Time, plan.Count = 0, execs
		}
		o, err := stormOne(ctx, client, plan)
		if err != nil {
			return fmt.Errorf("at %s executions a second: %w", rate, err)
		}
		fmt.Printf("%-10s %8s %10.0f %9d %9d %9d %9d %9d\n", name, rate, o.rate, o.Made, o.Missed, o.admitted, o.Duplicated, o.Extra)
		for _, file := range o.madeUp {
			fmt.Printf("%-10s %8s made up: %.200q\n", "", "", file)
		}
	}
	return nil
}

// stormOne makes a storm in a box that a monitor watches.
func stormOne(ctx context.Context, client *monitor.Client, plan storm.Plan) (*outcome, error) {
	dir, err := os.MkdirTemp("", "confine-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if plan.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if err := plan.Prepare(plan.Dir); err != nil {
		return nil, err
	}
	argv := plan.Args()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{}
	var out bytes.Buffer
	cmd.Stdout = &out
	b, err := box.Start(cmd)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Group == "" {
		return nil, errors.New("no control groups of version 2 are mounted")
	}
	scope := b.Scope()
	scope.EveryEvent = true
	w, err := client.Watch(ctx, scope)
	if err != nil {
		return nil, err
	}
	seen := map[string]uint64{}
	var read sync.WaitGroup
	read.Go(func() {
		for ev := range w.Events() {
			if e := ev.GetExec(); e != nil {
				seen[e.GetPath()]++
			}
		}
	})
	defer read.Wait()
	defer w.Cancel()
	if _, err := b.Run(); err != nil {
		return nil, err
	}
	truth, err := plan.ReadTruth(&out)
	if err != nil {
		return nil, err
	}
	if truth.Failed > 0 {
		return nil, errors.New("the storm could not execute all that it wanted; the machine may lack memory or processes")
	}
	stop, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	snap, err := w.Stop(stop)
	if err != nil {
		return nil, err
	}
	read.Wait()
	return compare(truth, seen, snap), nil
}

// compare holds what was seen against what was executed.
func compare(truth *storm.Truth, seen map[string]uint64, snap *confinev1.SnapshotResponse) *outcome {
	o := &outcome{admitted: snap.GetLost()}
	o.Comparison = storm.Compare(truth.Executed, seen, func(file string, made, _ uint64) {
		if made == 0 && len(o.madeUp) < mostMadeUp {
			o.madeUp = append(o.madeUp, file)
		}
	})
	o.rate = float64(o.Made) / truth.Time.Seconds()
	return o
}
