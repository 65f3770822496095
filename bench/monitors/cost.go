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

	"github.com/confinehq/confine/pkg/monitor"
)

// settle is how long nothing is measured after a watch began or ended: it
// takes some work to begin one and to clean up after it.
const settle = 300 * time.Millisecond

// pause is how long nothing is measured after a loop, for its monitor to tell
// the last events.
const pause = 50 * time.Millisecond

// cost measures what monitors cost programs while they watch. Two loops run
// all the time, each in a container of its own; one of the containers is
// watched now by this monitor, now by that one, and by none between each two.
// What is compared lies within a second or two: the steps of one process under
// a watch with those that it made before and after it.
func cost(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cost", flag.ContinueOnError)
	plugins := f.String("plugins", "bin/plugins", "`folder` of the monitors")
	rounds := f.Int("rounds", 60, "how many watches of each monitor")
	execs := f.Int("execs", 60, "executions measured at a time")
	calls := f.Int("calls", 60_000, "system calls measured at a time")
	every := f.Bool("every-event", false, "have each event delivered, repeated ones too")
	if err := f.Parse(args); err != nil {
		return err
	}
	m, err := newMeter(ctx)
	if err != nil {
		return err
	}
	defer m.close()
	m.every = *every
	m.kinds = []kind{{"exec", "fork and exec", *execs}, {"call", "system call", *calls}}
	m.begin(ctx, *plugins, f.Args())
	if err := m.measure(ctx, *rounds); err != nil {
		return err
	}
	for i := range m.kinds {
		m.table(i)
	}
	return nil
}

// kind is one of the kinds of steps that loops make.
type kind struct {
	name  string
	title string
	count int // of steps measured at a time
}

// The two loops by their place in a meter.
const (
	watched = iota
	unwatched
	bothLoops
)

// look is what all loops did at one time: by kind and loop.
type look [][bothLoops]step

type step struct {
	took
	plugin time.Duration // processor time of the monitor meanwhile
	inside time.Duration // how long all eBPF programs of the machine ran meanwhile, if the kernel measured it
}

// meter runs loops under monitors.
type meter struct {
	every bool
	kinds []kind

	dir     string
	on      processors
	loops   [bothLoops]*loop
	clients []*monitor.Client

	// alone and under are by monitor and round: without a monitor, right before
	// and after each watch, and under the watch.
	alone [][][2]look
	under [][]look
	// counted is by monitor, of a watch in which the kernel measured its
	// programs.
	counted []look
}

func newMeter(ctx context.Context) (_ *meter, err error) {
	m := &meter{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.on, err = split(); err != nil {
		return nil, err
	}
	if err := pin(os.Getpid(), &m.on.others); err != nil {
		return nil, err
	}
	if m.dir, err = os.MkdirTemp("", "confine-bench-"); err != nil {
		return nil, err
	}
	path, err := compileLoop(ctx, m.dir)
	if err != nil {
		return nil, err
	}
	for i := range m.loops {
		if m.loops[i], err = startLoop(path, &m.on.loops); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *meter) close() {
	for _, c := range m.clients {
		c.Close()
	}
	for _, l := range m.loops {
		if l != nil {
			l.box.Close()
		}
	}
	if m.dir != "" {
		os.RemoveAll(m.dir)
	}
}

// begin starts the monitors that work here, and says why the others don't.
func (m *meter) begin(ctx context.Context, plugins string, names []string) {
	for _, name := range names {
		client, err := monitor.Start(ctx, monitor.HostConfig{Path: filepath.Join(plugins, "confine-monitor-"+name)})
		if err == nil {
			if _, err = m.watch(ctx, client, func() error { return nil }); err == nil {
				m.clients = append(m.clients, client)
				continue
			}
			client.Close()
		}
		fmt.Printf("%-10s %v\n", name, err)
	}
}

// watch has a monitor watch the container of one loop while do runs, and
// returns how many events it lost.
func (m *meter) watch(ctx context.Context, c *monitor.Client, do func() error) (lost uint64, err error) {
	scope := m.loops[watched].box.Scope()
	scope.EveryEvent = m.every
	w, err := c.Watch(ctx, scope)
	if err != nil {
		return 0, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range w.Events() {
		}
	}()
	defer func() { <-read }()
	if err := do(); err != nil {
		w.Cancel()
		return 0, err
	}
	snap, err := w.Stop(ctx)
	return snap.GetLost(), err
}

// measure fills m.
func (m *meter) measure(ctx context.Context, rounds int) error {
	m.alone, m.under = make([][][2]look, len(m.clients)), make([][]look, len(m.clients))
	before, err := m.look(ctx, nil)
	if err != nil {
		return err
	}
	for range rounds {
		for i, c := range m.clients {
			under, err := m.lookUnder(ctx, c)
			if err != nil {
				return err
			}
			after, err := m.look(ctx, nil)
			if err != nil {
				return err
			}
			m.alone[i] = append(m.alone[i], [2]look{before, after})
			m.under[i] = append(m.under[i], under)
			before = after
		}
	}
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("have the kernel measure its programs: %w", err)
	}
	defer counting.Close()
	for _, c := range m.clients {
		counted, err := m.lookUnder(ctx, c)
		if err != nil {
			return err
		}
		m.counted = append(m.counted, counted)
	}
	return nil
}

// lookUnder looks at the loops while a monitor watches one of them.
func (m *meter) lookUnder(ctx context.Context, c *monitor.Client) (l look, err error) {
	lost, err := m.watch(ctx, c, func() error {
		l, err = m.look(ctx, c)
		return err
	})
	if err == nil && lost > 0 && m.every {
		err = fmt.Errorf("%s lost %d events", c.Name(), lost)
	}
	return l, err
}

// look has each loop make steps of each kind once everything else has come to
// rest; c is the monitor that watches, or nil.
func (m *meter) look(ctx context.Context, c *monitor.Client) (look, error) {
	time.Sleep(settle)
	out := make(look, len(m.kinds))
	for i, k := range m.kinds {
		for at, l := range m.loops {
			// Caches know nothing of a kind that hasn't run for a while.
			if _, err := l.run(k.name, k.count/10); err != nil {
				return nil, err
			}
			s, err := m.step(l, k, c)
			if err != nil {
				return nil, err
			}
			out[i][at] = s
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (m *meter) step(l *loop, k kind, c *monitor.Client) (s step, err error) {
	var plugin time.Duration
	if c != nil {
		time.Sleep(pause)
		plugin = processTime(c.PID())
	}
	inside, err := programTime()
	if err != nil {
		return s, err
	}
	if s.took, err = l.run(k.name, k.count); err != nil {
		return s, err
	}
	after, err := programTime()
	if err != nil {
		return s, err
	}
	s.inside = after - inside
	if c != nil {
		time.Sleep(pause)
		s.plugin = processTime(c.PID()) - plugin
	}
	return s, nil
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

// table prints what became slower for one kind of steps.
func (m *meter) table(kind int) {
	k := m.kinds[kind]
	var cpu, wall []float64
	for _, rounds := range m.alone {
		for _, pair := range rounds {
			for at := range m.loops {
				s := pair[0][kind][at]
				cpu, wall = append(cpu, s.cpu.Seconds()), append(wall, s.wall.Seconds())
			}
		}
	}
	each := func(seconds float64) float64 { return seconds * 1e6 / float64(k.count) }
	fmt.Printf("\n%s, %d at a time; without a monitor %.3g us of processor time and %.3g us each\n",
		k.title, k.count, each(median(cpu)), each(median(wall)))
	fmt.Printf("%-10s %-10s %-28s %-28s %-26s %s\n", "monitor", "the loop", "processor time", "time", "in all eBPF programs", "of the plugin, for each")
	for i, c := range m.clients {
		for at, who := range [bothLoops]string{"watched", "unwatched"} {
			inside := m.counted[i][kind][at].inside.Seconds()
			var plugin time.Duration
			for _, u := range m.under[i] {
				plugin += u[kind][at].plugin
			}
			fmt.Printf("%-10s %-10s %-28s %-28s %-26s %.2f us\n", c.Name(), who,
				m.slower(i, kind, at, func(s step) time.Duration { return s.cpu }),
				m.slower(i, kind, at, func(s step) time.Duration { return s.wall }),
				fmt.Sprintf("%.2f us (%.2f %%)", each(inside), 100*inside/median(cpu)),
				each(plugin.Seconds())/float64(len(m.under[i])))
		}
	}
}

// slower is by how much a loop is slower under a monitor than alone: the
// median of all rounds, and where it lies with a confidence of 95 %, whatever
// the rounds are distributed like.
func (m *meter) slower(client, kind, at int, of func(step) time.Duration) string {
	percent := stats.Sample{}
	for round, under := range m.under[client] {
		pair := m.alone[client][round]
		alone := of(pair[0][kind][at]) + of(pair[1][kind][at])
		percent.Xs = append(percent.Xs, 100*(2*of(under[kind][at]).Seconds()/alone.Seconds()-1))
	}
	middle, low, high := stats.QuantileCI(len(percent.Xs), 0.5, 0.95).SampleCI(percent)
	return fmt.Sprintf("%+6.2f %% (%+.2f to %+.2f)", middle, low, high)
}

func median(v []float64) float64 { return stats.Sample{Xs: v}.Quantile(0.5) }
