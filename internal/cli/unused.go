package cli

import (
	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/explain"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// explainUnused lists the allowed calls that were not made.
func (a *app) explainUnused(cmd *cobra.Command, name string, limit int, output string) error {
	if output == "dot" {
		return usagef(cmd, "--unused has no graph; use -o text or json")
	}
	result, kernel, err := a.storedWithKernel(cmd, name)
	if err != nil {
		return err
	}
	u := explain.UnusedOf(result, kernel, limit)
	if output == "json" {
		return writeJSON(a.out, u)
	}
	explain.UnusedText(a.out, u)
	return nil
}

// storedWithKernel asks for a result, and for the kernel of its node.
func (a *app) storedWithKernel(cmd *cobra.Command, name string) (r *confinev1.Result, kernel string, err error) {
	err = a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
		resp, err := c.GetProfile(cmd.Context(), &confinev1.GetProfileRequest{Name: name})
		if err != nil {
			return err
		}
		r = resp.GetResult()
		nodes, err := c.ListNodes(cmd.Context(), &confinev1.ListNodesRequest{})
		for _, n := range nodes.GetNodes() {
			if n.GetName() == r.GetNode() {
				kernel = n.GetKernel()
			}
		}
		return err
	})
	return r, kernel, err
}

func newCVEs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cves ID|IMAGE",
		Short: "Say which known holes of the kernel a profile leaves within reach",
		Long: `cves compares a stored result with a table of holes of the Linux kernel that were
reached through system calls. A hole is closed when the profile allows none of
its calls; it is left when one of them is allowed. Those that the mainline version
of the node's kernel still has come first.

The table tells where the kernel was weak. It doesn't replace updates.`,
		Example:           "  confinectl cves redis\n  confinectl cves redis -o json | jq '.closed | length'",
		Args:              exactArgs("ID or IMAGE"),
		ValidArgsFunction: a.completeFirst,
	}
	all := cmd.Flags().Bool("all", false, "list the holes that the profile closes, too")
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		result, kernel, err := a.storedWithKernel(cmd, args[0])
		if err != nil {
			return err
		}
		h := explain.HolesOf(result, kernel)
		if *output == "json" {
			return writeJSON(a.out, h)
		}
		return explain.HolesText(a.out, h, *all)
	}
	return cmd
}
