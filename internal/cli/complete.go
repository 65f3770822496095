package cli

import (
	"slices"

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
