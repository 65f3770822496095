package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/proc"
)

const (
	// optionTool picks one sysdig: a path.
	optionTool = "tool"
	// optionProbe is the eBPF probe that sysdig is to load instead of its
	// module: a path.
	optionProbe = "bpf-probe"
	// oldestMinor is the oldest 0.x that is used.
	oldestMinor = 27
	// lineLimit is the longest line of output that is read, in bytes. sysdig
	// cuts environments and arguments to 4 KiB each.
	lineLimit = 256 << 10
	// keptErrors is how much of sysdig's complaints is kept, in bytes.
	keptErrors = 4096
	// versionTime bounds how long sysdig may take to tell its version.
	versionTime = 10 * time.Second
)

// tool is the sysdig of this node.
type tool struct {
	path    string
	version string
}

// find finds sysdig and refuses one that is too old.
func find(ctx context.Context) (tool, error) {
	name := monitor.Option(optionTool)
	if name == "" {
		name = "sysdig"
	}
	path, err := exec.LookPath(name)
	if err != nil && !filepath.IsAbs(name) {
		path, err = exec.LookPath(filepath.Join("/usr/local/bin", name))
	}
	if err != nil {
		return tool{}, fmt.Errorf("sysdig is not installed (%w); install it (apt-get install sysdig), or name its path by option %s in the agent's settings", err, optionTool)
	}
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return tool{}, fmt.Errorf("%s --version: %w", path, err)
	}
	version, err := acceptable(string(out))
	if err != nil {
		return tool{}, fmt.Errorf("%s: %w", path, err)
	}
	return tool{path: path, version: version}, nil
}

// acceptable returns the version that sysdig prints, if it is new enough.
func acceptable(out string) (string, error) {
	m := regexp.MustCompile(`\b(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?\b`).FindStringSubmatch(out)
	if m == nil {
		return "", errors.New("it tells no version; is it sysdig?")
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major == 0 && minor < oldestMinor {
		return "", fmt.Errorf("sysdig %s is too old: versions up to 0.%d do not report executions by execveat and leak memory under load, so that executions are lost without being counted; install 0.%d or newer",
			m[0], oldestMinor-1, oldestMinor)
	}
	return m[0], nil
}

// process is a sysdig that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and all its output is read

	err     error // why it ended; valid after ended
	errs    []byte
	readErr error
}

// start runs sysdig and hands out its lines of output.
func (t tool) start(args []string, line func(line string, whole bool)) (*process, error) {
	cmd := &exec.Cmd{Path: t.path, Args: append([]string{t.path}, args...), SysProcAttr: &syscall.SysProcAttr{}}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/"}
	if probe := monitor.Option(optionProbe); probe != "" {
		cmd.Env = append(cmd.Env, "SYSDIG_BPF_PROBE="+probe)
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = in, &tail{p}
	// A pipe that a child of its own would keep open is not waited for.
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("start sysdig: %w", err)
	}
	go func() {
		defer close(p.ended)
		p.readErr = proc.EachLine(out, lineLimit, line)
		_ = out.Close()
		p.err = cmd.Wait()
	}()
	return p, nil
}

// tail keeps the end of what is written.
type tail struct{ p *process }

func (t *tail) Write(b []byte) (int, error) {
	t.p.errs = append(t.p.errs, b...)
	if n := len(t.p.errs); n > keptErrors {
		t.p.errs = t.p.errs[n-keptErrors:]
	}
	return len(b), nil
}

// stop ends it, so that it tells its statistics, and waits.
func (p *process) stop() {
	proc.End(p.cmd, unix.SIGINT, p.ended, 5*time.Second)
}

// said is what it complained about, one line; valid after ended.
func (p *process) said() string {
	var lines []string
	for line := range bytes.Lines(p.errs) {
		s := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD"))
		if s != "" && !isStatistic(s) && !strings.HasPrefix(s, "res = ") {
			lines = append(lines, s)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// isStatistic reports whether a line is one of those that -v ends with.
func isStatistic(line string) bool {
	for _, p := range []string{"Driver Events:", "Driver Drops:", "Suppressed by Comm:", "Elapsed time:"} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// drops is what the driver says it dropped, by its statistics; valid after
// ended.
func (p *process) drops() uint64 {
	for line := range bytes.Lines(p.errs) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "Driver Drops:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// run runs sysdig to its end.
func (t tool) run(ctx context.Context, args []string, line func(line string, whole bool)) (*process, error) {
	p, err := t.start(args, line)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ended:
		return p, nil
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		return nil, ctx.Err()
	}
}
