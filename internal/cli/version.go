package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/version"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

type versionDocument struct {
	Client string `json:"client"`
	// Server is "" when none answered.
	Server string `json:"server"`
	// Error says why none answered.
	Error string `json:"error,omitempty"`
}

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of confinectl and of the server",
		Args:  noArgs,
	}
	output := outputFlag(cmd, "text", "json")
	client := cmd.Flags().Bool("client", false, "don't ask the server")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		doc := versionDocument{Client: version.String()}
		if !*client {
			err := a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
				info, err := c.GetServerInfo(cmd.Context(), &confinev1.GetServerInfoRequest{})
				doc.Server = info.GetVersion()
				return err
			})
			if err != nil {
				doc.Error = a.explainError(err)
			}
		}
		if *output == "json" {
			return writeJSON(a.out, doc)
		}
		fmt.Fprintf(a.out, "confinectl %s\n", doc.Client)
		switch {
		case doc.Server != "":
			fmt.Fprintf(a.out, "server     %s\n", doc.Server)
		case !*client:
			fmt.Fprintf(a.err, "%s\n", doc.Error)
		}
		return nil
	}
	return cmd
}
