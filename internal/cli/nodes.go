package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newNodes(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the machines whose agents joined",
		Args:  noArgs,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		return a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
			list, err := c.ListNodes(cmd.Context(), &confinev1.ListNodesRequest{})
			if err != nil {
				return err
			}
			if *output == "json" {
				return writeProto(a.out, list)
			}
			return a.writeNodes(list.GetNodes())
		})
	}
	return cmd
}

func (a *app) writeNodes(nodes []*confinev1.Node) error {
	if len(nodes) == 0 {
		fmt.Fprintln(a.err, "no node has joined yet; make a token with 'confinectl token create --role agent'")
		return nil
	}
	rows := [][]string{{"NAME", "STATE", "SEEN", "VERSION", "PLATFORM", "KERNEL", "CONTAINERD", "RUNTIME", "MONITORS"}}
	for _, n := range nodes {
		state := a.out.Styles.Bad.Render("away")
		if n.GetConnected() {
			state = a.out.Styles.Good.Render("ready")
		}
		rows = append(rows, []string{
			n.GetName(), state, age(n.GetLastSeen()), dash(n.GetVersion()), dash(n.GetPlatform()), dash(n.GetKernel()),
			dash(n.GetContainerd()), dash(n.GetRuntime()), dash(strings.Join(n.GetMonitors(), ",")),
		})
	}
	return term.Table(a.out, rows)
}

// age is how long ago something was, in one unit.
func age(t *timestamppb.Timestamp) string {
	if t == nil || t.AsTime().Unix() <= 0 {
		return "-"
	}
	d := time.Since(t.AsTime())
	switch {
	case d < 2*time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// dash stands for what isn't known.
func dash(s string) string { return first(s, "-") }
