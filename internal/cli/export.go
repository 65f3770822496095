package cli

import (
	"github.com/spf13/cobra"
)

func newExport(a *app) *cobra.Command {
	formats := []string{"oci", "docker"}
	cmd := &cobra.Command{
		Use:   "export ID|IMAGE",
		Short: "Write the profile of a stored result for a runtime",
		Long: `export writes the profile of a stored result (of an image, the newest) to
standard output or a file. The oci form is what linux.seccomp of an OCI
configuration holds; Docker, Podman, containerd and Kubernetes read it, too.

The exit code is 3 when the profile isn't complete and proven.`,
		Args: exactArgs("ID or IMAGE"),
	}
	output := outputFlag(cmd, formats...)
	file := cmd.Flags().StringP("output-file", "f", "", "write to this file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, formats...); err != nil {
			return err
		}
		result, err := a.stored(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if err := a.deliverDocument(result, *output, *file); err != nil {
			return err
		}
		writeVerdict(a.err, result, true)
		return verdict(result)
	}
	return cmd
}
