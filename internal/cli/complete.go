package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// completeResults completes the images and the ids of stored results, as far
// as a server answers.
func (a *app) completeResults(cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	var names []string
	_ = a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
		list, err := c.ListProfiles(cmd.Context(), &confinev1.ListProfilesRequest{})
		for _, p := range list.GetProfiles() {
			names = append(names, p.GetImage(), p.GetId()+"\t"+p.GetImage())
		}
		return err
	})
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// completeFirst completes the first argument by stored results.
func (a *app) completeFirst(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeResults(cmd)
}

// completeWhere completes --node and --monitor by the nodes that a server knows
// and what they have.
func (a *app) completeWhere(cmd *cobra.Command) {
	from := func(names func(*confinev1.Node) []string) cobra.CompletionFunc {
		return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var all []string
			_ = a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
				list, err := c.ListNodes(cmd.Context(), &confinev1.ListNodesRequest{})
				for _, n := range list.GetNodes() {
					all = append(all, names(n)...)
				}
				return err
			})
			slices.Sort(all)
			return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
		}
	}
	_ = cmd.RegisterFlagCompletionFunc("node", from(func(n *confinev1.Node) []string { return []string{n.GetName()} }))
	if cmd.Flags().Lookup("monitor") == nil {
		return
	}
	_ = cmd.RegisterFlagCompletionFunc("monitor", func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if strings.Contains(typed, "/") {
			return nil, cobra.ShellCompDirectiveDefault // a path
		}
		return from((*confinev1.Node).GetMonitors)(cmd, args, typed)
	})
}
