package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := accuracy(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "accuracy:", err)
		os.Exit(1)
	}
}

// report is what is printed.
type report struct {
	Rows []row `json:"rows"`
	// LeftOut says why programs weren't run.
	LeftOut map[string]string `json:"left_out,omitempty"`
}

func accuracy(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("accuracy", flag.ExitOnError)
	only := flags.String("run", "", "run the programs whose name matches this expression")
	format := flags.String("o", "table", "table or json")
	cover := flags.Bool("coverage", false, "hold every block of instructions and every call that is executed under qemu-user against the analysis")
	noInstall := flags.Bool("no-install", false, "leave out programs whose packages aren't installed")
	_ = flags.Parse(args)
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	src, err := os.MkdirTemp("", "accuracy-src-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	list, err := read(flags.Args(), src)
	if err != nil {
		return err
	}
	r := &runner{src: src, install: !*noInstall}
	list = slices.DeleteFunc(list, func(p program) bool { return !match.MatchString(p.name) })
	if *cover {
		return r.coverage(ctx, list, out, *format)
	}
	rep := report{LeftOut: map[string]string{}}
	seen := trace{}
	first := map[string]program{} // key: image
	var order []string
	for _, p := range list {
		fmt.Fprintf(os.Stderr, "running %s\n", p.name)
		t, err := r.trace(ctx, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			rep.LeftOut[p.name] = err.Error()
			if !errors.Is(err, errLeftOut) {
				fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
			}
		}
		for path, img := range t {
			if _, err := os.Stat(path); err != nil || strings.HasPrefix(filepath.Base(path), "strace.") {
				continue
			}
			if _, ok := first[path]; !ok {
				first[path] = p
				order = append(order, path)
			}
			into := seen.image(path)
			for n := range img.made {
				into.made[n] = true
			}
			for n := range img.mapped {
				into.mapped[n] = true
			}
			for a, values := range img.args {
				if into.args[a] == nil {
					into.args[a] = map[uint32]bool{}
				}
				maps.Copy(into.args[a], values)
			}
		}
	}
	for _, path := range order {
		row := compare(ctx, path, seen[path])
		row.Program, row.Kind = first[path].name, first[path].kind
		rep.Rows = append(rep.Rows, row)
	}
	return rep.write(out, *format)
}

// read reads the programs of files, or the built-in ones, and writes their
// sources to a folder.
func read(files []string, src string) ([]program, error) {
	archives := [][]byte{builtin}
	if len(files) > 0 {
		archives = nil
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			archives = append(archives, b)
		}
	}
	var all []program
	for _, a := range archives {
		list, sources, err := parsePrograms(a)
		if err != nil {
			return nil, err
		}
		if err := writeSources(src, sources); err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (r *report) write(out io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return errors.Join(e.Encode(r), r.verdict())
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tKIND\tIMAGE\tMADE\tALLOWED\tMISSING\tNARROWED\tARGS\tMISSING ARGS\tF1\tTIME\tMAPPED\tUNFORESEEN")
	f1, n := 0.0, 0
	for _, row := range r.Rows {
		if row.Error != "" {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t-\t%s\t\t\t\t\n", row.Program, row.Kind, row.Image, row.Made, row.Error)
			continue
		}
		missing, wide := "0", ""
		if len(row.Missing) > 0 {
			missing = strings.Join(row.Missing, ",")
		}
		args := "0"
		if len(row.MissingArgs) > 0 {
			args = strings.Join(row.MissingArgs, ",")
		}
		if row.Unresolved {
			wide = "*"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d%s\t%s\t%d\t%d\t%s\t%.2f\t%.2f s\t%d\t%d\n",
			row.Program, row.Kind, row.Image, row.Made, row.Allowed, wide, missing, row.Narrowed, row.Compared, args, row.F1, row.Seconds, row.Mapped, len(row.Unforeseen))
		f1, n = f1+row.F1, n+1
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n > 0 {
		fmt.Fprintf(out, "%d images, mean F1 %.3f; * some number is unknown, so that every call is allowed\n", n, f1/float64(n))
	}
	for name, why := range r.LeftOut {
		fmt.Fprintf(out, "%s: %s\n", name, why)
	}
	return r.verdict()
}

// verdict is an error when a call is missing.
func (r *report) verdict() error {
	n := 0
	for _, row := range r.Rows {
		n += len(row.Missing) + len(row.MissingArgs)
	}
	if n > 0 {
		return fmt.Errorf("%d calls or arguments of calls that were made are missing", n)
	}
	return nil
}
