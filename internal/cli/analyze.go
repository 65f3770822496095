package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/factsdir"
	"github.com/confinehq/confine/internal/printable"
	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
)

type analyzeOptions struct {
	entrypoints []string
	load        []string
	noFollow    bool
	noCache     bool
	surplus     bool
	dump        string
	unresolved  string
	noArgs      bool
	explain     string
	explained   explainOptions
	file        string
}

func newAnalyze(a *app) *cobra.Command {
	var o analyzeOptions
	formats := []string{"text", "json", "oci", "dot"}
	cmd := &cobra.Command{
		Use:   "analyze ROOT --entrypoint PATH...",
		Short: "Find the system calls of programs in a folder, without running them",
		Long: `analyze reads the programs of a root file system in a folder, with everything
that they load and execute, and finds every system call that their code can
reach. It needs no server and runs nothing.

Exit code 3 says that something could not be resolved; the answer lists it.

With --explain CALL it prints why that call can be made, as 'confinectl explain'
does of a stored result; exit code 1 says that it can't.`,
		Example: `  confinectl analyze / --entrypoint /usr/sbin/nginx
  confinectl analyze ./rootfs --entrypoint /usr/bin/redis-server --no-follow -o json
  confinectl analyze ./rootfs --entrypoint /usr/bin/redis-server --explain socket --all
  confinectl analyze ./rootfs --entrypoint /bin/true --dump graph -o dot | dot -Tsvg > true.svg`,
		Args: exactArgs("ROOT"),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.entrypoints, "entrypoint", nil, "program inside ROOT; repeatable")
	f.StringArrayVar(&o.load, "load", nil, "module or plugin inside ROOT that the programs load at run time; repeatable")
	f.BoolVar(&o.noFollow, "no-follow", false, "leave out programs that the named ones execute, and libraries that only configuration names")
	f.BoolVar(&o.noCache, "no-cache", false, "compute everything anew")
	unresolvedFlag(f, &o.unresolved)
	f.BoolVar(&o.noArgs, "no-args", false, "leave conditions on the calls' arguments out")
	f.BoolVar(&o.surplus, "surplus", false, "rank the functions and data that bring in the most calls")
	f.StringVar(&o.dump, "dump", "", "print what the analysis works on: facts (of each object) or graph (what each program reaches), in words that ARCHITECTURE.md explains; -o text, json (a value a line) or, for a graph, dot")
	_ = cmd.RegisterFlagCompletionFunc("dump", cobra.FixedCompletions([]string{"facts", "graph"}, cobra.ShellCompDirectiveNoFileComp))
	f.StringVar(&o.explain, "explain", "", "print why this system call can be made (-o text, json or dot)")
	f.BoolVar(&o.explained.all, "all", false, "with --explain: all places that make the call, not the shortest chains alone")
	f.IntVar(&o.explained.limit, "limit", 100, "with --all: show at most this many places")
	_ = cmd.RegisterFlagCompletionFunc("explain", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return callNames(), cobra.ShellCompDirectiveNoFileComp
	})
	f.StringVarP(&o.file, "output-file", "f", "", "write the answer to this file")
	output := outputFlag(cmd, formats...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, formats...); err != nil {
			return err
		}
		if err := o.check(cmd, *output); err != nil {
			return err
		}
		result, err := a.analyze(cmd.Context(), args[0], o, *output)
		var unresolved *analysis.UnresolvedError
		if errors.As(err, &unresolved) {
			printable.All(unresolved)
			return a.sayUnresolved(unresolved)
		}
		if err != nil {
			return err
		}
		if o.dump != "" {
			return a.sayIncomplete(result)
		}
		if o.explain != "" {
			return a.explainAnalysis(cmd, result, o.explain, o.explained, *output)
		}
		return a.deliverAnalysis(result, *output, o.file)
	}
	return cmd
}

func (o *analyzeOptions) check(cmd *cobra.Command, output string) error {
	switch {
	case o.dump != "" && o.dump != "facts" && o.dump != "graph":
		return usagef(cmd, "--dump %q is neither facts nor graph", o.dump)
	case o.dump != "" && (o.explain != "" || o.surplus || o.file != "" || output == "oci"):
		return usagef(cmd, "--dump excludes --explain, --surplus, --output-file and -o oci")
	case o.dump != "graph" && o.explain == "" && output == "dot":
		return usagef(cmd, "-o dot needs --explain CALL or --dump graph")
	case o.explain == "" && o.explained.all:
		return usagef(cmd, "--all needs --explain CALL")
	case o.explain != "" && output == "oci":
		return usagef(cmd, "--explain and -o oci exclude each other")
	case o.explain != "" && o.file != "":
		return usagef(cmd, "--explain and --output-file exclude each other")
	case o.explained.limit < 1:
		return usagef(cmd, "--limit %d is below 1", o.explained.limit)
	}
	if len(o.entrypoints) == 0 {
		return usagef(cmd, "--entrypoint PATH is missing")
	}
	if err := checkUnresolved(cmd, o.unresolved); err != nil {
		return err
	}
	for _, p := range append(o.entrypoints, o.load...) {
		if !strings.HasPrefix(p, "/") {
			return usagef(cmd, "%q is not an absolute path inside ROOT", p)
		}
	}
	return nil
}

func (a *app) analyze(ctx context.Context, root string, o analyzeOptions, output string) (*analysis.Result, error) {
	dir, err := rootfs.NewDir(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if a.Getenv("GOGC") == "" {
		// An analysis makes much that dies young: a smaller heap costs it little.
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	req := analysis.Request{Root: dir, Options: analysis.Options{OnUnresolved: analysis.Unresolved(o.unresolved), NoFollow: o.noFollow, Surplus: o.surplus, NoArgs: o.noArgs, Explain: o.explain != ""}}
	a.dump(&req.Options, o.dump, output)
	for _, p := range o.entrypoints {
		req.Programs = append(req.Programs, analysis.Program{Path: p, Load: o.load})
	}
	if !o.noCache {
		cache, err := factsdir.Open(a.cacheDir())
		if err != nil {
			// An answer without a cache is worth more than none.
			fmt.Fprintf(a.err, "going on without a cache: %v\n", err)
		} else {
			defer cache.Close()
			req.Options.Cache = cache
		}
	}
	shown := term.NewStages(a.err, "Analysing "+strings.Join(o.entrypoints, ", ")+" in "+root, []string{"analyse"}, a.quiet || !a.err.Redraw)
	req.Options.Progress = func(done, total int) {
		shown.Update(term.Step{Stage: "analyse", Count: uint32(done), Total: uint32(total), Text: "objects"})
	}
	result, err := analysis.Analyze(ctx, req)
	printable.All(result)
	if err == nil {
		shown.Update(term.Step{Stage: "analyse", Done: true, Text: fmt.Sprintf("%d objects, %d calls", len(result.Objects), len(result.Syscalls))})
	}
	shown.Close(err != nil)
	return result, err
}

// gcPercent is how much the heap may grow between collections, in percent of
// what lives.
const gcPercent = 60

func (a *app) cacheDir() string {
	base := first(a.Getenv("XDG_CACHE_HOME"), filepath.Join(first(a.Getenv("HOME"), "/var/cache"), ".cache"))
	return filepath.Join(base, "confine", "facts")
}

func (a *app) deliverAnalysis(r *analysis.Result, format, file string) error {
	var text strings.Builder
	o := a.out
	if file != "" {
		o = term.NewOutput(&text, func(string) string { return "" })
	}
	var data []byte
	var err error
	switch format {
	case "json":
		data, err = plainJSON(analysisDocumentOf(r))
	case "oci":
		data, err = analysisProfile(r)
	default:
		err = writeAnalysis(o, r)
		data = []byte(text.String())
	}
	if err != nil {
		return err
	}
	switch {
	case file != "":
		err = writeFile(file, data)
	case len(data) > 0:
		err = write(a.out, data)
	}
	if err != nil {
		return err
	}
	if format != "text" || file != "" {
		return a.sayIncomplete(r)
	}
	if len(r.Incomplete) > 0 {
		return errIncomplete
	}
	return nil
}

// sayIncomplete says what is missing where the answer doesn't.
func (a *app) sayIncomplete(r *analysis.Result) error {
	if len(r.Incomplete) == 0 {
		return nil
	}
	sayMissing(a.err, analysisIssues(r.Incomplete))
	return errIncomplete
}

// dump has the analysis print what it works on.
func (a *app) dump(o *analysis.Options, what, output string) {
	format := map[string]reach.Format{"text": reach.AsText, "json": reach.AsJSON, "dot": reach.AsDot}[output]
	switch what {
	case "graph":
		o.Graph = func(program string, t *reach.Trail) error { return t.Print(a.out, program, format) }
	case "facts":
		o.Facts = func(path string, f *facts.Facts) error { return f.Print(a.out, path, format == reach.AsJSON) }
	}
}
