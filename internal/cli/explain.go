package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/explain"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// errNotAllowed ends a command that was asked why a call is allowed which
// isn't. That has been said already.
var errNotAllowed = errors.New("not allowed")

// explainFormats are the forms in which a call is explained.
func explainFormats() []string { return []string{"text", "json", "dot"} }

type explainOptions struct {
	all, unused bool
	limit       int
}

func newExplain(a *app) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain ID|IMAGE CALL",
		Short: "Say why a system call is allowed: from entry point to call site",
		Long: `explain prints the shortest chains from an entry point of a stored result's
programs to the code that makes a system call: each function with its object and
its place in it, what takes the address of those that are called through
pointers, and where the number of the call comes from.

With --unused it lists the calls that the profile allows and that no process made
in the run, those through which the kernel was attacked most first.

Exit code 1 says that the call isn't allowed; what comes nearest to it is shown.`,
		Example: `  confinectl explain redis clone
  confinectl explain redis socket --all
  confinectl explain redis socket --all -o dot | dot -Tsvg > socket.svg
  confinectl explain --unused redis`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.unused {
				return exactArgs("ID or IMAGE")(cmd, args)
			}
			return exactArgs("ID or IMAGE", "CALL")(cmd, args)
		},
		ValidArgsFunction: a.completeExplain,
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all places that make the call, not the shortest chains alone")
	cmd.Flags().IntVar(&o.limit, "limit", 100, "show at most this many places (with --all) or calls (with --unused)")
	cmd.Flags().BoolVar(&o.unused, "unused", false, "list the allowed calls that were not made, by risk")
	output := outputFlag(cmd, explainFormats()...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, explainFormats()...); err != nil {
			return err
		}
		if o.limit < 1 {
			return usagef(cmd, "--limit %d is below 1", o.limit)
		}
		if o.unused {
			return a.explainUnused(cmd, args[0], o.limit, *output)
		}
		return a.explainCall(cmd, args[0], args[1], o, *output)
	}
	return cmd
}

// completeExplain completes the image and then the call.
func (a *app) completeExplain(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeResults(cmd)
	case 1:
		return callNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// callNames are the names that can be asked about.
func callNames() []string {
	var names []string
	for _, c := range syscalls.All(syscalls.AMD64) {
		names = append(names, c.Name)
	}
	return names
}

func (a *app) explainCall(cmd *cobra.Command, name, call string, o explainOptions, output string) error {
	var resp *confinev1.ExplainResponse
	err := a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) (err error) {
		limit := 0
		if o.all {
			limit = o.limit
		}
		resp, err = c.Explain(cmd.Context(), &confinev1.ExplainRequest{Name: name, Call: call, Limit: uint32(limit)})
		return usageOf(cmd, err)
	})
	if err != nil {
		return err
	}
	return a.writeExplained(explain.OfServer(resp, call), o.all, output)
}

// explainAnalysis explains a call of an analysis without a server.
func (a *app) explainAnalysis(cmd *cobra.Command, r *analysis.Result, call string, o explainOptions, output string) error {
	arch, known := syscalls.ForPlatform(r.Platform)
	_, ok := syscalls.Number(arch, call)
	if _, compat := syscalls.Number(syscalls.I386, call); known && !ok && !(compat && r.Compat) {
		return usagef(cmd, "%s", syscalls.Unknown(arch, call))
	}
	limit := 0
	if o.all {
		limit = o.limit
	}
	return a.writeExplained(explain.OfAnalysis(r, call, limit), o.all, output)
}

func (a *app) writeExplained(d *explain.Document, all bool, output string) error {
	switch output {
	case "json":
		if err := writeJSON(a.out, d); err != nil {
			return err
		}
	case "dot":
		if err := explain.Dot(a.out, d); err != nil {
			return err
		}
	default:
		explain.Text(a.out, d, all)
	}
	if !d.Allowed {
		return errNotAllowed
	}
	return nil
}
