package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
)

// optionTool is the option that picks one execsnoop: a path.
const optionTool = "tool"

// kind is whose execsnoop it is.
type kind int

const (
	libbpf kind = iota
	bpftrace
	bcc
)

func (k kind) String() string {
	return [...]string{"libbpf-tools", "bpftrace", "bcc"}[k]
}

// tool is one execsnoop of this node.
type tool struct {
	kind kind
	path string
	// filters is set when it can be limited to a cgroup.
	filters bool
	// counts is set when what it misses there can be counted.
	counts bool
}

func (t tool) String() string { return fmt.Sprintf("execsnoop of %s (%s)", t.kind, t.path) }

// candidates lists the names under which distributions install execsnoop, the
// preferred first.
func candidates() []string {
	return []string{
		"execsnoop", "bpf-execsnoop", "execsnoop.bt", "execsnoop-bpfcc",
		"/usr/share/bpftrace/tools/execsnoop.bt", "/usr/share/bcc/tools/execsnoop",
	}
}

// find lists the tools that are there, in the order in which they are tried.
func find(ctx context.Context) ([]tool, error) {
	names := candidates()
	if path := monitor.Option(optionTool); path != "" {
		names = []string{path}
	}
	var found []tool
	known := map[string]bool{}
	for _, name := range names {
		path, ok := locate(name)
		if !ok || known[path] {
			continue
		}
		known[path] = true
		t, err := identify(ctx, path)
		if err != nil {
			if monitor.Option(optionTool) != "" {
				return nil, fmt.Errorf("option %s names %s: %w", optionTool, path, err)
			}
			continue
		}
		found = append(found, t)
	}
	var sorted []tool
	for k := libbpf; k <= bcc; k++ {
		for _, t := range found {
			if t.kind == k {
				sorted = append(sorted, t)
			}
		}
	}
	if len(sorted) == 0 {
		return nil, errors.New("no execsnoop is installed; install one: apt-get install libbpf-tools (or bpftrace, or bpfcc-tools), or name its path by option " + optionTool + " in the agent's settings")
	}
	return sorted, nil
}

// locate finds a program by PATH and in the folders of administrators, which
// PATH may lack.
func locate(name string) (string, bool) {
	var paths []string
	if filepath.IsAbs(name) {
		paths = []string{name}
	} else {
		dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin")
		for _, dir := range dirs {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		return p, true
	}
	return "", false
}

// identify tells whose execsnoop a file is by what it is made of.
func identify(ctx context.Context, path string) (tool, error) {
	f, err := os.Open(path)
	if err != nil {
		return tool{}, err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return tool{}, errors.New("it is no program")
	}
	if string(head) == "\x7fELF" {
		return identifyELF(ctx, path)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return tool{}, err
	}
	first, _, err := bufio.NewReaderSize(f, 512).ReadLine()
	if err != nil {
		return tool{}, errors.New("it is no program")
	}
	switch line := string(first); {
	case strings.HasPrefix(line, "#!") && strings.Contains(line, "bpftrace"):
		return tool{kind: bpftrace, path: path}, nil
	case strings.HasPrefix(line, "#!") && strings.Contains(line, "python"):
		return tool{kind: bcc, path: path}, nil
	}
	return tool{}, errors.New("it is an execsnoop of a kind that this monitor doesn't know (libbpf-tools, bpftrace and bcc it knows)")
}

// identifyELF looks whether a program knows the options that are needed.
func identifyELF(ctx context.Context, path string) (tool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	help, err := exec.CommandContext(ctx, path, "--help").CombinedOutput()
	if err != nil {
		return tool{}, fmt.Errorf("%s --help: %w", path, err)
	}
	for _, option := range []string{"--quote", "--max-args"} {
		if !strings.Contains(string(help), option) {
			return tool{}, fmt.Errorf("it is too old: it lacks the option %s", option)
		}
	}
	return tool{kind: libbpf, path: path, filters: strings.Contains(string(help), "--cgroup")}, nil
}

// command is how the tool is started; cgroup is the folder that it is limited
// to, "" for none. Its output comes line by line.
func (t tool) command(cgroup string) ([]string, error) {
	switch t.kind {
	case libbpf:
		// The C library writes to a pipe in blocks unless it is told.
		argv := []string{"stdbuf", "-oL", t.path, "--quote", "--max-args", "1"}
		if cgroup != "" {
			argv = append(argv, "--cgroup", cgroup)
		}
		return argv, nil
	case bpftrace:
		return []string{"bpftrace", "-B", "line", t.path}, nil
	default:
		return []string{t.path, "--quote", "--max-args", "1"}, nil
	}
}

// environment is what the tool gets beside PATH.
func (t tool) environment() []string {
	if t.kind == bcc {
		return []string{"PYTHONUNBUFFERED=1"}
	}
	return nil
}

// version asks the tool, or the program that runs it, for its version; "" when
// there is none.
func (t tool) version(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name := t.path
	switch t.kind {
	case bpftrace:
		name = "bpftrace"
	case bcc:
		return ""
	}
	out, err := exec.CommandContext(ctx, name, "--version").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.ToValidUTF8(first[:min(len(first), 100)], "\uFFFD")
}

// limits is what can't be seen with the tool.
func (t tool) limits() []string {
	out := []string{
		"mappings are looked up in /proc now and then: those of short-lived processes can be missed, and the run says of which programs",
		"the name of a process that ends before it can be looked at counts as what it executed, where it is an absolute path in the container's root",
	}
	switch t.kind {
	case bpftrace:
		return append(out,
			"execsnoop.bt tells the first argument, not the file: a process that ends before it can be looked at is counted as lost",
			"execsnoop.bt tells executions before they happen, failing ones too, and mixes what several processors print: short-lived ones can be missed",
			"executions of the whole node are looked at: one whose process and parent have ended is counted as lost")
	case bcc:
		return append(out, untold+"others are missed without being counted",
			"executions of the whole node are looked at: one whose process and parent have ended is counted as lost")
	}
	if t.counts {
		return append(out, untold+"others are counted as lost")
	}
	return append(out, untold+"others are missed without being counted")
}

// untold begins the sentence on what execsnoop of libbpf-tools and bcc leave out.
const untold = "execveat, and execve by another thread than the first or by a 32-bit program, are not reported: programs that run on are found in /proc, "
