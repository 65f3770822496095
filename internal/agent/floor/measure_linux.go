package floor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	// rounds is how often each variant is measured: the runtime's own threads
	// don't make the same calls each time.
	rounds = 4
	// measureTime bounds one round.
	measureTime = 30 * time.Second
)

// Measure returns the numbers of the calls that a runtime's init makes between
// loading the filter and execve, that one included, sorted. It makes
// containers of its own from the given spec, whose entrypoint never runs, in a
// temporary folder.
//
// runtime is the path of the binary, spec the container that the floor is for.
func Measure(ctx context.Context, runtime string, spec *specs.Spec) ([]int32, error) {
	var all []int32
	for _, user := range users(spec) {
		for range rounds {
			calls, err := measureOnce(ctx, runtime, spec, user)
			if err != nil {
				return nil, fmt.Errorf("measure floor: %w", err)
			}
			all = append(all, calls...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// users are root and another: the runtime changes to them by different calls.
func users(spec *specs.Spec) []specs.User {
	umask := uint32(0o022)
	list := []specs.User{{}, {UID: 65534, GID: 65534, AdditionalGids: []uint32{1, 2}, Umask: &umask}}
	if spec.Process != nil {
		list[0] = spec.Process.User
	}
	return list
}

func measureOnce(ctx context.Context, runtime string, spec *specs.Spec, user specs.User) (_ []int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "confine-floor-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeBundle(dir, spec, user); err != nil {
		return nil, err
	}
	id := "confine-floor-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(dir)
	state := filepath.Join(dir, "state")
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureTime)
		defer cancel()
		_ = exec.CommandContext(clean, runtime, "--root", state, "delete", "--force", id).Run()
	}()
	var output bytes.Buffer
	cmd := exec.Command(runtime, "--root", state, "run", "--bundle", dir, id)
	// Files, not pipes: nothing has to be copied while ptrace runs.
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	calls, err := trace(ctx, cmd)
	if err != nil {
		if b, read := os.ReadFile(log.Name()); read == nil {
			output.Write(b[:min(len(b), 512)])
		}
		if text := strings.TrimSpace(output.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return nil, err
	}
	return calls, nil
}

// writeBundle makes a bundle whose root holds one program, and whose spec is
// that of the container as far as it changes what the runtime does.
func writeBundle(dir string, spec *specs.Spec, user specs.User) error {
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "probe"), program(), 0o755); err != nil {
		return err
	}
	s := *spec
	process := *spec.Process
	process.Args, process.Terminal, process.User, process.Cwd = []string{"/probe"}, false, user, "/"
	// The probe is executed by everybody, whatever the container is labelled.
	process.ApparmorProfile, process.SelinuxLabel = "", ""
	s.Process = &process
	s.Root = &specs.Root{Path: "rootfs"}
	s.Hooks = nil
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
	}
	linux := *spec.Linux
	linux.CgroupsPath = "/" + filepath.Base(dir)
	linux.Resources = nil
	linux.Seccomp = probeProfile()
	s.Linux = &linux
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}

// probeProfile is a filter that refuses nothing that a runtime needs: it only
// has to be there. The call that it names is one that no runtime makes.
func probeProfile() *specs.LinuxSeccomp {
	errno := uint(unix.EPERM)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"swapoff"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
}

// tgidOf returns the process of a thread.
func tgidOf(tid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return tid
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return n
			}
		}
	}
	return tid
}
