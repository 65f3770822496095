package cli

import (
	"github.com/spf13/cobra"

	"github.com/confinehq/confine/pkg/seccomp"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newExport(a *app) *cobra.Command {
	formats := []string{"oci", "docker"}
	cmd := &cobra.Command{
		Use:   "export ID|IMAGE",
		Short: "Write the profile of a stored result for a runtime",
		Long: `export writes the profile of a stored result (of an image, the newest) to
standard output or a file. The oci form is what linux.seccomp of an OCI
configuration holds; Docker, Podman, containerd and Kubernetes read it, too.
With --no-args it allows the same calls with any arguments, which allows more
than what was proven.

The exit code is 3 when the profile isn't complete and proven.`,
		Args: exactArgs("ID or IMAGE"),
	}
	output := outputFlag(cmd, formats...)
	file := cmd.Flags().StringP("output-file", "f", "", "write to this file")
	noArgs := cmd.Flags().Bool("no-args", false, "leave conditions on the calls' arguments out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, formats...); err != nil {
			return err
		}
		result, err := a.stored(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *noArgs {
			if err := dropConditions(result); err != nil {
				return err
			}
		}
		if err := a.deliverDocument(result, *output, *file); err != nil {
			return err
		}
		writeVerdict(a.err, result, true)
		return verdict(result)
	}
	return cmd
}

// dropConditions makes a result's profile allow its calls with any arguments.
func dropConditions(r *confinev1.Result) error {
	data, err := profileDocument(r)
	if err != nil {
		return err
	}
	p, err := seccomp.Read(data)
	if err != nil {
		return err
	}
	if data, err = p.WithoutArgs().JSON(); err != nil {
		return err
	}
	return r.GetProfile().UnmarshalJSON(data)
}
