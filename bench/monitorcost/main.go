// Command monitorcost measures what a monitor costs programs: a loop that forks
// and executes runs in turns without a monitor, watched, and beside something
// that is watched. It counts processor time, not time, so that other work on
// the machine disturbs it little, and compares the three within each round.
//
//	go run ./bench/monitorcost --plugin bin/plugins/confine-monitor-ebpf
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor"
)

// settings are the command line.
type settings struct {
	plugin string
	rounds int
	execs  int
	every  bool
	json   bool
}

func main() {
	var s settings
	flag.StringVar(&s.plugin, "plugin", "bin/plugins/confine-monitor-ebpf", "`path` of the monitor")
	flag.IntVar(&s.rounds, "rounds", 20, "how many rounds")
	flag.IntVar(&s.execs, "execs", 400, "executions of each loop")
	flag.BoolVar(&s.every, "every-event", false, "have each event delivered, repeated ones too")
	flag.BoolVar(&s.json, "json", false, "print JSON")
	flag.Parse()
	if err := measure(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "monitorcost:", err)
		os.Exit(1)
	}
}

// result is what was measured.
type result struct {
	Plugin     string  `json:"plugin"`
	EveryEvent bool    `json:"every_event"`
	Rounds     int     `json:"rounds"`
	Execs      int     `json:"execs"`
	BaseMicros float64 `json:"base_us_per_exec"` // median, processor time
	// Slowdowns in percent of the processor time of the loop, medians over the
	// rounds.
	Watched   float64 `json:"watched_percent"`
	Unwatched float64 `json:"unwatched_percent"`
	Events    uint64  `json:"events"`
	Repeated  uint64  `json:"repeated"`
	Lost      uint64  `json:"lost"`
	// Of the plugin.
	IdleMicros float64 `json:"plugin_idle_us_per_s"` // with a watch of something quiet
	MicrosExec float64 `json:"plugin_us_per_watched_exec"`
	RSS        uint64  `json:"plugin_rss_kib"`
}

func measure(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("", "monitorcost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	loop, err := compileLoop(ctx, dir)
	if err != nil {
		return err
	}
	c, err := monitor.Start(ctx, monitor.HostConfig{Path: s.plugin})
	if err != nil {
		return err
	}
	defer c.Close()
	m := &meter{settings: s, client: c, loop: loop}
	if err := m.idle(ctx); err != nil {
		return err
	}
	var base, watched, unwatched []float64
	for round := range s.rounds {
		times, err := m.round(ctx, round)
		if err != nil {
			return err
		}
		base = append(base, times[0]/float64(s.execs))
		watched = append(watched, 100*(times[1]/times[0]-1))
		unwatched = append(unwatched, 100*(times[2]/times[0]-1))
	}
	r := m.result
	r.Plugin, r.EveryEvent, r.Rounds, r.Execs = s.plugin, s.every, s.rounds, s.execs
	r.BaseMicros, r.Watched, r.Unwatched = median(base), median(watched), median(unwatched)
	r.MicrosExec = m.busy.Seconds() * 1e6 / float64(s.rounds*s.execs)
	if s.json {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	fmt.Printf("%s, %d rounds of %d executions, %.0f us of processor time each without a monitor\n", c.Name(), r.Rounds, r.Execs, r.BaseMicros)
	fmt.Printf("watched %+.1f %%, beside a watched one %+.1f %%\n", r.Watched, r.Unwatched)
	fmt.Printf("%d events, %d repeated, %d lost; plugin: %.1f us for each execution, %.0f us a second when idle, %d MiB\n",
		r.Events, r.Repeated, r.Lost, r.MicrosExec, r.IdleMicros, r.RSS>>10)
	return nil
}

// meter runs the loops.
type meter struct {
	settings
	client *monitor.Client
	loop   string
	result result
	busy   time.Duration // of the plugin while it watched loops
}

// round runs the loop without a monitor, watched and unwatched, each time in
// another order; times are in microseconds of processor time, in that order.
func (m *meter) round(ctx context.Context, n int) (times [3]float64, err error) {
	for i := range 3 {
		way := (n + i) % 3
		if n%2 == 1 {
			way = (n + 2 - i) % 3
		}
		if times[way], err = m.one(ctx, way); err != nil {
			return times, err
		}
	}
	return times, nil
}

func (m *meter) one(ctx context.Context, way int) (float64, error) {
	b, err := newBox(m.loop, m.execs)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if way == 0 {
		return run(b)
	}
	watched := b
	if way == 2 {
		if watched, err = newBox(m.loop, 0); err != nil {
			return 0, err
		}
		defer watched.Close()
	}
	scope := watched.Scope()
	scope.EveryEvent = m.every
	w, err := m.client.Watch(ctx, scope)
	if err != nil {
		return 0, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range w.Events() {
		}
	}()
	before := processTime(m.client.PID())
	used, err := run(b)
	if err != nil {
		return 0, err
	}
	snap, err := w.Stop(ctx)
	<-read
	if err != nil {
		return 0, err
	}
	if way == 1 {
		m.busy += processTime(m.client.PID()) - before
		r := snap.GetRepeated()
		m.result.Events += snap.GetEvents()
		m.result.Lost += snap.GetLost()
		m.result.Repeated += r.GetExecs() + r.GetMappings() + r.GetExits()
	}
	return used, nil
}

// idle measures the plugin with a watch in which nothing happens.
func (m *meter) idle(ctx context.Context) error {
	b, err := newBox(m.loop, 0)
	if err != nil {
		return err
	}
	defer b.Close()
	w, err := m.client.Watch(ctx, b.Scope())
	if err != nil {
		return err
	}
	defer w.Cancel()
	const span = 5 * time.Second
	before := processTime(m.client.PID())
	time.Sleep(span)
	m.result.IdleMicros = (processTime(m.client.PID()) - before).Seconds() * 1e6 / span.Seconds()
	m.result.RSS = box.ResidentKiB(m.client.PID())
	return nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	if len(v)%2 == 0 {
		return (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return v[len(v)/2]
}
