package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor"
)

// cost measures what monitors cost programs. Within each round a loop runs
// without a monitor, then watched by each and beside a container that each
// watches, in another order every time; what is compared is of one round.
func cost(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cost", flag.ContinueOnError)
	plugins := f.String("plugins", "bin/plugins", "`folder` of the monitors")
	rounds := f.Int("rounds", 15, "how many rounds")
	execs := f.Int("execs", 400, "executions of a loop")
	calls := f.Int("calls", 2_000_000, "system calls of a loop")
	every := f.Bool("every-event", false, "have each event delivered, repeated ones too")
	if err := f.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "confine-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := compileLoop(ctx, dir)
	if err != nil {
		return err
	}
	m := &meter{rounds: *rounds, every: *every, quiet: execLoop(path, 0)}
	defer m.close()
	m.begin(ctx, *plugins, f.Args())
	if err := m.table(ctx, "fork and exec", execLoop(path, *execs), *execs); err != nil {
		return err
	}
	return m.table(ctx, "system call", callLoop(path, *calls), *calls)
}

// meter runs loops under monitors.
type meter struct {
	rounds  int
	every   bool
	quiet   loop // what is watched while another loop runs
	clients []*monitor.Client
	// programs is how long eBPF programs ran in the last loop, if the kernel
	// measured it.
	programs time.Duration
}

// begin starts the monitors that work here, and says why the others don't.
func (m *meter) begin(ctx context.Context, plugins string, names []string) {
	for _, name := range names {
		client, err := monitor.Start(ctx, monitor.HostConfig{Path: filepath.Join(plugins, "confine-monitor-"+name)})
		if err == nil {
			if err = m.try(ctx, client); err == nil {
				m.clients = append(m.clients, client)
				continue
			}
			client.Close()
		}
		fmt.Printf("%-10s %v\n", name, err)
	}
}

// try finds out whether a monitor works here.
func (m *meter) try(ctx context.Context, c *monitor.Client) error {
	b, err := m.quiet.box()
	if err != nil {
		return err
	}
	defer b.Close()
	w, err := c.Watch(ctx, b.Scope())
	if err != nil {
		return err
	}
	w.Cancel()
	for range w.Events() {
	}
	return nil
}

func (m *meter) close() {
	for _, c := range m.clients {
		c.Close()
	}
}

// way is one of the ways in which a loop runs; without a client, no monitor
// is there.
type way struct {
	client  *monitor.Client
	watched bool
}

func (m *meter) ways() []way {
	all := []way{{}}
	for _, c := range m.clients {
		all = append(all, way{c, true}, way{c, false})
	}
	return all
}

// table runs a loop of count steps in all ways and prints what became slower.
func (m *meter) table(ctx context.Context, what string, l loop, count int) error {
	ways := m.ways()
	times := make([][]took, len(ways)) // by way, then round
	for i := range times {
		times[i] = make([]took, m.rounds)
	}
	busy := make([]time.Duration, len(ways)) // of the plugins
	for round := range m.rounds {
		for i := range ways {
			at := (round + i) % len(ways)
			if round%2 == 1 {
				at = (round + len(ways) - i) % len(ways)
			}
			t, plugin, err := m.one(ctx, l, ways[at])
			if err != nil {
				return err
			}
			times[at][round] = t
			busy[at] += plugin
		}
	}
	inside := make([]time.Duration, len(ways))
	for i := range ways[1:] {
		var err error
		if inside[i+1], err = m.inside(ctx, l, ways[i+1]); err != nil {
			return err
		}
	}
	base := times[0]
	fmt.Printf("\n%s, %d in each of %d rounds; without a monitor %.3g us of processor time and %.3g us each\n",
		what, count, m.rounds, median(each(base, took.cpuMicros))/float64(count), median(each(base, took.wallMicros))/float64(count))
	fmt.Printf("%-10s %-10s %-28s %-28s %-26s %s\n", "monitor", "the loop", "processor time", "time", "in the kernel's programs", "of the plugin, for each")
	for i, w := range ways[1:] {
		who := "unwatched"
		if w.watched {
			who = "watched"
		}
		share := fmt.Sprintf("%.2f us (%.2f %%)", inside[i+1].Seconds()*1e6/float64(count), 100*inside[i+1].Seconds()*1e6/median(each(base, took.cpuMicros)))
		fmt.Printf("%-10s %-10s %-28s %-28s %-26s %.2f us\n", w.client.Name(), who,
			slower(base, times[i+1], took.cpuMicros), slower(base, times[i+1], took.wallMicros), share,
			busy[i+1].Seconds()*1e6/float64(m.rounds*count))
	}
	return nil
}

// inside runs a loop in one way once more and has the kernel measure how long its
// eBPF programs run meanwhile: what they cost each event, but for the way into
// them, which no noise of the machine hides.
func (m *meter) inside(ctx context.Context, l loop, w way) (time.Duration, error) {
	measuring, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return 0, fmt.Errorf("have the kernel measure its programs: %w", err)
	}
	defer measuring.Close()
	m.programs = 0
	_, _, err = m.one(ctx, l, w)
	return m.programs, err
}

// programTime is how long all eBPF programs of the machine ran while the kernel
// measured it.
func programTime() (time.Duration, error) {
	total := time.Duration(0)
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return total, nil
		}
		if err != nil {
			return 0, err
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it is gone
		}
		if err != nil {
			return 0, err
		}
		s, err := p.Stats()
		p.Close()
		if err != nil {
			return 0, err
		}
		total += s.Runtime
	}
}

// one runs a loop in one way; plugin is the processor time of the monitor from
// when it was ready to when it had told everything.
func (m *meter) one(ctx context.Context, l loop, w way) (t took, plugin time.Duration, err error) {
	b, err := l.box()
	if err != nil {
		return t, 0, err
	}
	defer b.Close()
	if w.client == nil {
		t, err = timed(b)
		return t, 0, err
	}
	watched := b
	if !w.watched {
		if watched, err = m.quiet.box(); err != nil {
			return t, 0, err
		}
		defer watched.Close()
	}
	scope := watched.Scope()
	scope.EveryEvent = m.every
	watch, err := w.client.Watch(ctx, scope)
	if err != nil {
		return t, 0, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range watch.Events() {
		}
	}()
	before := processTime(w.client.PID())
	if t, err = m.timed(b); err != nil {
		watch.Cancel()
		<-read
		return t, 0, err
	}
	snap, err := watch.Stop(ctx)
	<-read
	if err == nil && snap.GetLost() > 0 && m.every {
		err = fmt.Errorf("%s lost %d events", w.client.Name(), snap.GetLost())
	}
	return t, processTime(w.client.PID()) - before, err
}

// timed runs a loop, and keeps how long eBPF programs ran meanwhile.
func (m *meter) timed(b *box.Box) (took, error) {
	before, err := programTime()
	if err != nil {
		return took{}, err
	}
	t, err := timed(b)
	if err != nil {
		return t, err
	}
	after, err := programTime()
	m.programs = after - before
	return t, err
}

func (t took) cpuMicros() float64  { return float64(t.cpu.Microseconds()) }
func (t took) wallMicros() float64 { return float64(t.wall.Microseconds()) }

func each(list []took, of func(took) float64) []float64 {
	var out []float64
	for _, t := range list {
		out = append(out, of(t))
	}
	return out
}

// slower is by how much the rounds of one way are slower than those of another:
// the median, and where it lies with a confidence of 95 %, whatever the rounds
// are distributed like.
func slower(base, times []took, of func(took) float64) string {
	percent := stats.Sample{}
	for i := range times {
		if of(base[i]) > 0 {
			percent.Xs = append(percent.Xs, 100*(of(times[i])/of(base[i])-1))
		}
	}
	middle, low, high := stats.QuantileCI(len(percent.Xs), 0.5, 0.95).SampleCI(percent)
	return fmt.Sprintf("%+6.2f %% (%+.2f to %+.2f)", middle, low, high)
}

func median(v []float64) float64 { return stats.Sample{Xs: v}.Quantile(0.5) }
