package cli

import (
	"context"

	"github.com/spf13/cobra"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newShow(a *app) *cobra.Command {
	formats := []string{"summary", "json", "oci", "docker"}
	cmd := &cobra.Command{
		Use:   "show ID|IMAGE",
		Short: "Show a stored result; of an image, the newest",
		Args:  exactArgs("ID or IMAGE"),
	}
	output := outputFlag(cmd, formats...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, formats...); err != nil {
			return err
		}
		result, err := a.stored(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *output == "summary" {
			writeSummary(a.out, result)
			return nil
		}
		data, err := document(result, *output)
		if err != nil {
			return err
		}
		return write(a.out, data)
	}
	return cmd
}

// stored asks the server for a result.
func (a *app) stored(ctx context.Context, name string) (*confinev1.Result, error) {
	var result *confinev1.Result
	err := a.withServer(ctx, func(c confinev1.OperatorServiceClient) error {
		resp, err := c.GetProfile(ctx, &confinev1.GetProfileRequest{Name: name})
		result = resp.GetResult()
		return err
	})
	return result, err
}
