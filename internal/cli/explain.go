package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newExplain(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain ID|IMAGE CALL",
		Short:   "Say why a system call is allowed: from entry point to call site",
		Example: "  confinectl explain redis clone",
		Args:    exactArgs("ID or IMAGE", "CALL"),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		result, err := a.stored(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		call := findCall(result, args[1])
		if call == nil {
			return a.explainAbsent(cmd, result, args[1], *output)
		}
		if *output == "json" {
			return writeProto(a.out, call)
		}
		writeReasons(a.out, result, call)
		return nil
	}
	return cmd
}

func findCall(r *confinev1.Result, name string) *confinev1.Syscall {
	for _, s := range r.GetSyscalls() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// explainAbsent answers for a call that the profile refuses, and refuses
// itself to answer for one that doesn't exist.
func (a *app) explainAbsent(cmd *cobra.Command, r *confinev1.Result, name, output string) error {
	arch, known := syscalls.ForPlatform(r.GetPlatform())
	if _, ok := syscalls.Number(arch, name); known && !ok {
		return usagef(cmd, "%s has no system call %q", r.GetPlatform(), name)
	}
	if output == "json" {
		return write(a.out, []byte("null\n"))
	}
	fmt.Fprintf(a.out, "%s is not allowed for %s: no code that the analysis reached makes it\n", name, r.GetImage())
	return nil
}

func writeReasons(o *term.Output, r *confinev1.Result, s *confinev1.Syscall) {
	seen := "not seen during the run"
	if s.GetSeen() {
		seen = "seen during the run"
	}
	fmt.Fprintf(o, "%s (%d) is allowed for %s, %s\n", o.Styles.Title.Render(s.GetName()), s.GetNr(), r.GetImage(), seen)
	for _, c := range s.GetArgs() {
		fmt.Fprintf(o, "  only with %s\n", condition(c))
	}
	for i, reason := range s.GetReasons() {
		fmt.Fprintf(o, "\n%d. %s\n", i+1, strings.TrimSpace(reasonWord(reason.GetKind())+o.Styles.Dim.Render(" "+reason.GetDetail())))
		writeChain(o, reason.GetChain())
	}
}

// reasonWord says what a kind of reason means.
func reasonWord(kind string) string {
	switch kind {
	case "site":
		return "a call site is reachable:"
	case "floor":
		return "the container runtime needs it to start the container:"
	case "kernel":
		return "the kernel makes it for the program:"
	case "fallback":
		return "an imprecision was widened:"
	}
	return kind + ":"
}

// writeChain prints one function a line; the object is named where it changes.
func writeChain(w io.Writer, chain []*confinev1.Frame) {
	edges, names := 0, 0
	for _, f := range chain {
		edges = max(edges, len(f.GetEdge()))
		names = max(names, len(frameName(f)))
	}
	object := ""
	for _, f := range chain {
		where := ""
		if f.GetObject() != object {
			object = f.GetObject()
			where = object
		}
		line := "   " + term.Pad(f.GetEdge(), edges) + "  " + term.Pad(frameName(f), names) + "  " + where
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

func frameName(f *confinev1.Frame) string {
	if f.GetSymbol() == "" {
		return fmt.Sprintf("+0x%x", f.GetAddress())
	}
	return f.GetSymbol()
}

// condition prints an argument condition as a person would write it.
func condition(c *confinev1.ArgCondition) string {
	arg := fmt.Sprintf("argument %d", c.GetIndex())
	if c.GetOp() == "SCMP_CMP_MASKED_EQ" {
		return fmt.Sprintf("%s & 0x%x == 0x%x", arg, c.GetValue(), c.GetValueTwo())
	}
	signs := map[string]string{
		"SCMP_CMP_EQ": "==", "SCMP_CMP_NE": "!=", "SCMP_CMP_LT": "<", "SCMP_CMP_LE": "<=", "SCMP_CMP_GT": ">", "SCMP_CMP_GE": ">=",
	}
	return fmt.Sprintf("%s %s %d", arg, first(signs[c.GetOp()], c.GetOp()), c.GetValue())
}
