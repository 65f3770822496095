package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newMonitors(a *app) *cobra.Command {
	var w where
	cmd := &cobra.Command{
		Use:   "monitors [--node NODE | --standalone]",
		Short: "List the monitors of nodes, and which of them work there",
		Long: `monitors lists the monitors of a node, or of all: those in its folder of plugins,
and those that its agent's configuration names. Each is started for it and asked
what it can see on that node; runs that are watched meanwhile aren't disturbed.
One that doesn't work is listed with the reason and what to do.`,
		Example: `  confinectl monitors --node n1
  confinectl monitors -o json
  confinectl monitors --standalone`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&w.node, "node", "", "only this node")
	w.addLocalFlags(f)
	output := outputFlag(cmd, "text", "json")
	a.completeWhere(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		if err := w.check(cmd); err != nil {
			return err
		}
		if err := w.possible(cmd, a); err != nil {
			return err
		}
		list, err := a.describeMonitors(cmd.Context(), w)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeProto(a.out, list)
		}
		return a.writeMonitors(list.GetNodes())
	}
	return cmd
}

func (a *app) describeMonitors(ctx context.Context, w where) (*confinev1.DescribeMonitorsResponse, error) {
	client, closer, err := a.operator(ctx, w.standalone, w.local)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if a.err.Terminal && !a.quiet {
		fmt.Fprintln(a.err, a.err.Styles.Dim.Render("Starting each monitor and asking it what it can see ..."))
	}
	list, err := client.DescribeMonitors(ctx, &confinev1.DescribeMonitorsRequest{Node: w.node})
	if err != nil {
		return nil, err
	}
	for _, n := range list.GetNodes() {
		if w.node != "" && n.GetProblem() != "" && len(n.GetMonitors()) == 0 {
			return nil, fmt.Errorf("%s (when it connected, it had: %s)", n.GetProblem(), dash(strings.Join(n.GetInstalled(), ", ")))
		}
	}
	return list, nil
}

// writeMonitors shows one node at length, and several in a table.
func (a *app) writeMonitors(nodes []*confinev1.NodeMonitors) error {
	switch len(nodes) {
	case 0:
		fmt.Fprintln(a.err, "no node has joined yet; make a token with 'confinectl token create --role agent'")
		return nil
	case 1:
		a.writeNode(nodes[0])
		return nil
	}
	rows := [][]string{{"NODE", "MONITOR", "STATE", "VERSION", "SEES"}}
	for _, n := range nodes {
		rows = append(rows, a.monitorRows(n)...)
	}
	if err := term.Table(a.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	for _, n := range nodes {
		if n.GetProblem() != "" {
			fmt.Fprintf(a.out, "%s: %s\n", n.GetNode(), n.GetProblem())
		}
		for _, m := range n.GetMonitors() {
			if m.GetProblem() != "" {
				fmt.Fprintf(a.out, "%s, %s: %s\n", n.GetNode(), m.GetName(), m.GetProblem())
			}
		}
	}
	return nil
}

// monitorRows are the lines of a node in the table. Of one that could not be
// asked, names are known alone.
func (a *app) monitorRows(n *confinev1.NodeMonitors) [][]string {
	var rows [][]string
	for _, m := range n.GetMonitors() {
		version, _, _ := strings.Cut(m.GetVersion(), " ")
		rows = append(rows, []string{n.GetNode(), m.GetName(), a.monitorState(m), dash(version), dash(sees(m.GetSees()))})
	}
	if len(rows) > 0 {
		return rows
	}
	state := "unknown"
	if !n.GetConnected() {
		state = "away"
	}
	for _, name := range n.GetInstalled() {
		rows = append(rows, []string{n.GetNode(), name, a.out.Styles.Warn.Render(state), "-", "-"})
	}
	if len(rows) == 0 {
		rows = append(rows, []string{n.GetNode(), "-", a.out.Styles.Warn.Render(state), "-", "-"})
	}
	return rows
}

// monitorState is one word or two about a monitor.
func (a *app) monitorState(m *confinev1.MonitorStatus) string {
	switch {
	case !m.GetWorks():
		return a.out.Styles.Bad.Render("fails")
	case !m.GetSees().GetExec():
		return a.out.Styles.Warn.Render("replays only")
	}
	return a.out.Styles.Good.Render("works")
}

// sees lists what a monitor can see.
func sees(c *confinev1.Capabilities) string {
	var out []string
	add := func(is bool, what string) {
		if is {
			out = append(out, what)
		}
	}
	some := func(what string, but bool) string {
		if but {
			return what + " (may miss short-lived ones)"
		}
		return what
	}
	add(c.GetExec(), some("executions", c.GetMissesShortLived()))
	add(c.GetExecMapping(), some("mappings", c.GetMissesShortMappings()))
	add(c.GetRecordedSyscalls(), "calls made")
	add(c.GetDeniedSyscalls(), "calls refused")
	add(c.GetExit(), "ends of processes")
	add(c.GetReplay(), "recorded traces")
	return strings.Join(out, ", ")
}

// writeNode shows everything about the monitors of one node.
func (a *app) writeNode(n *confinev1.NodeMonitors) {
	s := summary{o: a.out, width: a.out.Width()}
	if !a.out.Terminal {
		s.width = 100
	}
	fmt.Fprintf(a.out, "\n%s\n\n", a.out.Styles.Title.Render("node "+n.GetNode()))
	if n.GetProblem() != "" {
		s.row("problem", a.out.Styles.Bad.Render(n.GetProblem()))
		if len(n.GetInstalled()) > 0 {
			s.row("it had", strings.Join(n.GetInstalled(), ", "))
		}
		fmt.Fprintln(a.out)
	}
	for _, m := range n.GetMonitors() {
		a.writeMonitor(s, m)
	}
	if n.GetProblem() == "" && len(n.GetMonitors()) == 0 {
		s.row("problem", "it has no monitor: put one into its folder of plugins ('confine-agent --help')")
	}
}

func (a *app) writeMonitor(s summary, m *confinev1.MonitorStatus) {
	text := a.monitorState(m)
	if m.GetVersion() != "" {
		text += ", version " + m.GetVersion()
	}
	if m.GetDefault() {
		text += ", used when none is named"
	}
	s.row(m.GetName(), text)
	if m.GetProblem() != "" {
		s.row("  why", m.GetProblem())
	}
	if what := sees(m.GetSees()); what != "" {
		s.row("  sees", what)
	}
	for _, l := range m.GetLimits() {
		s.row("  but", l)
	}
	if len(m.GetMechanisms()) > 0 {
		s.row("  by", strings.Join(m.GetMechanisms(), ", "))
	}
	if m.GetSha256() != "" {
		s.row("  needs", needed(m))
	}
	s.row("  may use", allowed(m))
	if m.GetPath() != "" {
		s.row("  program", m.GetPath()+pinning(m))
	}
	fmt.Fprintln(a.out)
}

// needed names the capabilities of Linux that a monitor needs, and which of
// them it doesn't get.
func needed(m *confinev1.MonitorStatus) string {
	if len(m.GetNeeds()) == 0 {
		return "no capabilities"
	}
	gets := map[string]bool{}
	for _, c := range m.GetGets() {
		gets[c] = true
	}
	var out []string
	for _, c := range m.GetNeeds() {
		if !gets[c] {
			c += " (not given: the agent withholds or lacks it)"
		}
		out = append(out, c)
	}
	return strings.Join(out, ", ")
}

// allowed says what a monitor may use.
func allowed(m *confinev1.MonitorStatus) string {
	b := m.GetBounds()
	text := fmt.Sprintf("%s of memory, %d open files, %d processes and threads, processor weight %d (others have 100)",
		size(b.GetMemory()), b.GetFiles(), b.GetProcesses(), b.GetCpuWeight())
	if len(m.GetOptions()) > 0 {
		text += "; options " + strings.Join(m.GetOptions(), ", ")
	}
	return text
}

// pinning says whether another program can take a monitor's place.
func pinning(m *confinev1.MonitorStatus) string {
	switch {
	case m.GetPinned():
		return ", pinned by its checksum"
	case m.GetSha256() != "":
		return ", not pinned (sha256 " + m.GetSha256() + ")"
	}
	return ""
}

// size is a number of bytes in the largest unit that it is a whole number of.
func size(bytes uint64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if bytes > 0 && bytes&(1<<u.shift-1) == 0 {
			return fmt.Sprintf("%d %s", bytes>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", bytes)
}
