package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/confinehq/confine/pkg/analysis"
)

// unresolvedFlag adds --on-unresolved.
func unresolvedFlag(f *pflag.FlagSet, value *string) {
	f.StringVar(value, "on-unresolved", string(analysis.UnresolvedWiden),
		"for code that can make any call (a computed number, ctypes): widen (allow every call), fail (make no profile), observe (allow what is known and what was seen)")
}

// checkUnresolved checks the value of --on-unresolved.
func checkUnresolved(cmd *cobra.Command, value string) error {
	var names []string
	for _, w := range analysis.UnresolvedWays() {
		names = append(names, string(w))
	}
	if slices.Contains(names, value) {
		return nil
	}
	return usagef(cmd, "--on-unresolved %q is none of %s", value, strings.Join(names, ", "))
}

// sayUnresolved lists the places that can make any call.
func (a *app) sayUnresolved(e *analysis.UnresolvedError) error {
	for _, p := range e.Places {
		fmt.Fprintf(a.err, "unresolved: %s\n", newIssue(p.Kind, p.Object, p.Detail).text)
	}
	return fmt.Errorf("%s; --on-unresolved widen allows every call, observe only what is known", e.Summary())
}
