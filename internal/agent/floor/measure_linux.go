package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/internal/agent/cgroup"
)

const (
	// rounds is how often each start is measured: the runtime's own threads
	// don't make the same calls each time.
	rounds = 3
	// measureTime bounds one round.
	measureTime = 30 * time.Second
	// bundlePrefix begins the names of folders and containers.
	bundlePrefix = "confine-floor-"
)

// Measure returns the numbers of the calls that a runtime's init makes between
// loading the filter and execve, that one included, sorted; when a container
// starts, and when a program is executed inside of one, as healthchecks and
// probes are. It makes containers of its own from the given spec; the
// container's own programs never run.
//
// runtime is the path of the binary, dir a folder for what is made, which
// Clean empties after a crash, spec the container that the floor is for.
func Measure(ctx context.Context, runtime, dir string, spec *specs.Spec) ([]int32, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("measure floor: %w", err)
	}
	var all []int32
	for _, user := range users(spec) {
		b, err := newBundle(runtime, dir, spec, user)
		if err != nil {
			return nil, fmt.Errorf("measure floor: %w", err)
		}
		calls, err := b.measure(ctx)
		b.remove(ctx)
		if err != nil {
			return nil, fmt.Errorf("measure floor: %w", err)
		}
		all = append(all, calls...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Clean removes what measurements in a folder left when their process was
// killed. Nobody may be measuring there.
func Clean(ctx context.Context, runtime, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up after measuring: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), bundlePrefix) {
			(&bundle{runtime: runtime, dir: filepath.Join(dir, e.Name())}).remove(ctx)
		}
	}
	return nil
}

// users are the container's and another: the runtime changes to them by
// different calls.
func users(spec *specs.Spec) []specs.User {
	umask := uint32(0o022)
	list := []specs.User{{}, {UID: 65534, GID: 65534, AdditionalGids: []uint32{1, 2}, Umask: &umask}}
	if spec.Process != nil {
		list[0] = spec.Process.User
	}
	return list
}

// bundle is a folder from which containers are made. Their root holds two
// programs, and there is a configuration for each.
type bundle struct {
	runtime string
	dir     string
}

// programs: name to code.
func programs() map[string][]byte { return map[string][]byte{"fault": faulting(), "wait": waiting()} }

func newBundle(runtime, parent string, spec *specs.Spec, user specs.User) (_ *bundle, err error) {
	dir, err := os.MkdirTemp(parent, bundlePrefix)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	b := &bundle{runtime: runtime, dir: dir}
	// The container's user has to get to the programs.
	for _, d := range []string{dir, b.root()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(d, 0o755); err != nil {
			return nil, err
		}
	}
	for name, code := range programs() {
		if err := b.add(name, code, b.spec(spec, user, name)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bundle) root() string { return filepath.Join(b.dir, "rootfs") }

// add writes a program and the configurations that run it: of a container, and
// of a process inside of one.
func (b *bundle) add(name string, code []byte, spec *specs.Spec) error {
	if err := os.WriteFile(filepath.Join(b.root(), name), program(code), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(b.root(), name), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(b.dir, name), 0o700); err != nil {
		return err
	}
	for file, v := range map[string]any{"config.json": spec, "process.json": spec.Process} {
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(b.dir, name, file), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// spec is that of the container as far as it changes what the runtime does.
func (b *bundle) spec(spec *specs.Spec, user specs.User, name string) *specs.Spec {
	s := *spec
	process := *spec.Process
	process.Args, process.Terminal, process.User, process.Cwd = []string{"/" + name}, false, user, "/"
	// The programs are executed by everybody, whatever the container is
	// labelled.
	process.ApparmorProfile, process.SelinuxLabel = "", ""
	s.Process = &process
	s.Root = &specs.Root{Path: b.root()}
	s.Hooks = nil
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
	}
	linux := *spec.Linux
	linux.CgroupsPath = "/" + filepath.Base(b.dir)
	linux.Resources = nil
	linux.Namespaces = ownNamespaces(linux.Namespaces)
	linux.Seccomp = probeProfile()
	s.Linux = &linux
	return &s
}

// ownNamespaces makes new ones instead of joining those of others.
func ownNamespaces(list []specs.LinuxNamespace) []specs.LinuxNamespace {
	out := slices.Clone(list)
	for i := range out {
		out[i].Path = ""
	}
	return out
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

// measure starts containers, and a program in one of them.
func (b *bundle) measure(ctx context.Context) ([]int32, error) {
	var all []int32
	for range rounds {
		calls, err := b.run(ctx, trace, "run", "--bundle", filepath.Join(b.dir, "fault"), b.id())
		if err != nil {
			return nil, err
		}
		all = append(all, calls...)
	}
	if _, err := b.run(ctx, untraced, "run", "--detach", "--bundle", filepath.Join(b.dir, "wait"), b.id()); err != nil {
		return nil, err
	}
	for range rounds {
		calls, err := b.run(ctx, trace, "exec", "--process", filepath.Join(b.dir, "fault", "process.json"), b.id())
		if err != nil {
			return nil, err
		}
		all = append(all, calls...)
	}
	return all, nil
}

// id is the name of the bundle's container; there is one at a time.
func (b *bundle) id() string { return filepath.Base(b.dir) }

func untraced(ctx context.Context, cmd *exec.Cmd) ([]int32, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	return nil, cmd.Wait()
}

// run runs the runtime, and explains an error by what it printed.
func (b *bundle) run(ctx context.Context, how func(context.Context, *exec.Cmd) ([]int32, error), args ...string) ([]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	// A file, not a pipe: nothing has to be copied while ptrace runs, and the
	// container may keep it.
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(b.runtime, append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	calls, err := how(ctx, cmd)
	if err == nil {
		return calls, nil
	}
	if text, read := os.ReadFile(log.Name()); read == nil && len(text) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(text[:min(len(text), 512)])))
	}
	return nil, err
}

// remove ends what is left of the container and removes the folder.
func (b *bundle) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureTime)
	defer cancel()
	state := filepath.Join(b.dir, "state")
	if entries, err := os.ReadDir(state); err == nil && len(entries) > 0 {
		_ = exec.CommandContext(ctx, b.runtime, "--root", state, "delete", "--force", b.id()).Run()
	}
	// What a killed runtime left; an empty group costs next to nothing.
	_ = cgroup.Remove(b.id())
	_ = os.RemoveAll(b.dir)
}
