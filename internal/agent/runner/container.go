package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/netns"
)

// Spec is what a container is made from.
type Spec struct {
	RunID string
	// Suffix tells the containers of one run apart: "" for the first.
	Suffix    string
	Namespace string
	Image     *Image
	// Args replace the image's command when not empty.
	Args []string
	// Env holds KEY=VALUE.
	Env []string
	// Mounts holds "source:destination[:ro]".
	Mounts []string
	User   string
	// NewPrivileges switches no_new_privs off.
	NewPrivileges bool
	// Seccomp is the filter, nil for none.
	Seccomp *specs.LinuxSeccomp
}

// Exit is the end of a container's first process.
type Exit struct {
	Code uint32
	// Err is set when the end could not be waited for.
	Err error
}

// Container is created and waits to be started; its first process exists and
// has not executed the entrypoint.
type Container struct {
	ID   string
	Spec *specs.Spec
	// Output keeps the last lines of both streams.
	Output *Tail

	runner    *Runner
	runID     string
	task      containerd.Task
	container containerd.Container
	namespace string
	pidfd     int
	exited    chan struct{}
	exit      Exit
}

// Create makes lease, snapshot, container and task. On failure the caller
// calls Remove for the run, as it does in the end.
func (r *Runner) Create(ctx context.Context, spec Spec) (*Container, error) {
	if err := checkID(spec.RunID); err != nil {
		return nil, err
	}
	ctx = r.namespace(ctx, spec.Namespace)
	ctx, err := r.hold(ctx, spec.RunID)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: prefix + spec.RunID + spec.Suffix, runner: r, runID: spec.RunID, namespace: spec.Namespace, Output: NewTail(), exited: make(chan struct{}), pidfd: -1}
	specOpts, err := r.specOpts(spec)
	if err != nil {
		return nil, err
	}
	capture := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		c.Spec = s
		if len(s.Process.Args) == 0 {
			return fault.New(codes.FailedPrecondition, "image %s states no entrypoint or command; give one with --arg", spec.Image.Name)
		}
		return nil
	}
	opts := []containerd.NewContainerOpts{containerd.WithImage(spec.Image.image)}
	if spec.Image.snapshotter != "" {
		opts = append(opts, containerd.WithSnapshotter(spec.Image.snapshotter))
	}
	opts = append(opts,
		containerd.WithNewSnapshot(c.ID, spec.Image.image),
		containerd.WithContainerLabels(map[string]string{labelOwner: r.owner, labelRun: spec.RunID}),
		containerd.WithNewSpec(append(specOpts, capture)...))
	c.container, err = r.client.NewContainer(ctx, c.ID, opts...)
	if err != nil {
		return nil, r.createError(c.ID, spec, err)
	}
	c.task, err = c.container.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, c.Output, c.Output), cio.WithFIFODir(filepath.Join(r.runDir(spec.RunID), "fifo"))))
	if err != nil {
		return nil, r.startError(spec, err)
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare does what needs the task's process and must come before Start.
func (c *Container) prepare(ctx context.Context) error {
	pidfd, err := unix.PidfdOpen(c.PID(), 0)
	if err != nil {
		return fmt.Errorf("open process of container %s: %w", c.ID, err)
	}
	c.pidfd = pidfd
	wait, err := c.task.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return c.runner.daemon(fmt.Errorf("wait for container %s: %w", c.ID, err))
	}
	go func() {
		status := <-wait
		c.exit = Exit{Code: status.ExitCode(), Err: c.runner.daemon(status.Error())}
		close(c.exited)
	}()
	ns, err := netns.Of(c.PID())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.LoopbackUp(); err != nil {
		return fmt.Errorf("prepare network of container %s: %w", c.ID, err)
	}
	return nil
}

// specOpts turns a Spec into options of the OCI spec.
func (r *Runner) specOpts(spec Spec) ([]oci.SpecOpts, error) {
	// As in Docker and Kubernetes, /run is the image's own: many images hold
	// folders of their programs there.
	opts := []oci.SpecOpts{oci.WithoutRunMount, oci.WithImageConfigArgs(spec.Image.image, spec.Args)}
	if len(spec.Env) > 0 {
		opts = append(opts, oci.WithEnv(spec.Env))
	}
	if spec.User != "" {
		opts = append(opts, oci.WithUser(spec.User), oci.WithAdditionalGIDs(userOf(spec.User)))
	}
	host := "confine"
	opts = append(opts, oci.WithHostname(host), oci.WithPidsLimit(r.cfg.PidsLimit))
	var mounts []specs.Mount
	for _, f := range []struct{ name, content string }{
		{"hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + host + "\n"},
		{"hostname", host + "\n"},
		{"resolv.conf", "# The container has no network.\n"},
	} {
		path, err := r.writeRunFile(spec.RunID, f.name, f.content)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Type: "bind", Source: path, Destination: "/etc/" + f.name, Options: []string{"rbind", "ro"}})
	}
	for _, m := range spec.Mounts {
		mount, err := parseMount(m)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mount)
	}
	opts = append(opts, oci.WithMounts(mounts))
	if spec.NewPrivileges {
		opts = append(opts, oci.WithNewPrivileges)
	} else {
		opts = append(opts, oci.WithNoNewPrivileges)
	}
	seccomp := spec.Seccomp
	opts = append(opts, func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.Seccomp = seccomp
		return nil
	})
	return opts, nil
}

// userOf returns the user part of "user[:group]".
func userOf(s string) string {
	user, _, _ := strings.Cut(s, ":")
	return user
}

// parseMount reads "source:destination[:ro|:rw]".
func parseMount(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	bad := func(why string) (specs.Mount, error) {
		return specs.Mount{}, fault.New(codes.InvalidArgument, "mount %q: %s; write it as /source:/destination or /source:/destination:ro", s, why)
	}
	if len(parts) < 2 || len(parts) > 3 {
		return bad("wrong number of parts")
	}
	if !filepath.IsAbs(parts[0]) || !filepath.IsAbs(parts[1]) {
		return bad("both paths must be absolute")
	}
	mode := "rw"
	if len(parts) == 3 {
		mode = parts[2]
	}
	if mode != "ro" && mode != "rw" {
		return bad("the third part must be ro or rw")
	}
	if _, err := os.Stat(parts[0]); err != nil {
		return bad("the source does not exist on the node")
	}
	return specs.Mount{Type: "bind", Source: parts[0], Destination: filepath.Clean(parts[1]), Options: []string{"rbind", mode}}, nil
}

// createError explains why a container could not be made: its user is looked
// up in the image.
func (r *Runner) createError(id string, spec Spec, err error) error {
	user := spec.User
	if user == "" {
		user = spec.Image.Config.User
	}
	if user != "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, oci.ErrNoUsersFound) || errors.Is(err, oci.ErrNoGroupsFound)) {
		return fault.New(codes.FailedPrecondition, "user %s is not known in image %s (%w); give a number or another name with --user", user, spec.Image.Name, err)
	}
	return r.daemon(fmt.Errorf("create container %s: %w", id, err))
}

// startError explains why a container could not be created or started: the
// runtime refuses entrypoints that don't exist at this point.
func (r *Runner) startError(spec Spec, err error) error {
	if Gone(err) {
		return r.daemon(err)
	}
	text := err.Error()
	for _, sign := range []string{"executable file not found", "no such file or directory", "permission denied", "exec format error"} {
		if strings.Contains(text, sign) && strings.Contains(text, "exec") {
			return fault.New(codes.FailedPrecondition, "the entrypoint of %s cannot be started: %w; check the image's entrypoint or give a command with --arg", spec.Image.Name, err)
		}
	}
	return fmt.Errorf("create task: %w", err)
}

// PID is the host PID of the first process.
func (c *Container) PID() int { return int(c.task.Pid()) }

// Namespace is containerd's namespace that the container lives in.
func (c *Container) Namespace() string {
	if c.namespace == "" {
		return c.runner.cfg.Namespace
	}
	return c.namespace
}

// Start lets the first process execute the entrypoint.
func (c *Container) Start(ctx context.Context, image *Image) error {
	ctx = c.runner.namespace(ctx, c.namespace)
	if err := c.task.Start(ctx); err != nil {
		return c.runner.startError(Spec{Image: image}, err)
	}
	return nil
}

// Exited is closed when the first process has ended or can't be waited for
// any more; Exit tells which.
func (c *Container) Exited() <-chan struct{} { return c.exited }

// Exit may be called after Exited is closed.
func (c *Container) Exit() Exit { return c.exit }

// Exec runs a command inside the container, as the container's user, and
// returns its exit code. started, if it isn't nil, is told the host PID.
func (c *Container) Exec(ctx context.Context, name string, args []string, started func(pid int32)) (uint32, error) {
	proc := *c.Spec.Process
	proc.Args = args
	return c.exec(ctx, name, &proc, cio.NullIO, started)
}

// ExecAsRoot runs a command inside the container as root and returns its exit
// code when all of its standard output has been written to out.
func (c *Container) ExecAsRoot(ctx context.Context, name string, args []string, out io.Writer) (uint32, error) {
	proc := *c.Spec.Process
	proc.Args, proc.Cwd, proc.User = args, "/", specs.User{}
	dir := filepath.Join(c.runner.runDir(c.runID), "fifo")
	return c.exec(ctx, name, &proc, cio.NewCreator(cio.WithStreams(nil, out, io.Discard), cio.WithFIFODir(dir)), nil)
}

func (c *Container) exec(ctx context.Context, name string, proc *specs.Process, streams cio.Creator, started func(pid int32)) (uint32, error) {
	ctx = c.runner.namespace(ctx, c.namespace)
	proc.Terminal = false
	p, err := c.task.Exec(ctx, name, proc, streams)
	if err != nil {
		return 0, c.runner.daemon(fmt.Errorf("exec in container %s: %w", c.ID, err))
	}
	clean := context.WithoutCancel(ctx)
	defer func() {
		clean, cancel := context.WithTimeout(clean, 10*time.Second)
		defer cancel()
		_, _ = p.Delete(clean, containerd.WithProcessKill)
	}()
	wait, err := p.Wait(clean)
	if err != nil {
		return 0, c.runner.daemon(fmt.Errorf("wait for exec: %w", err))
	}
	if err := p.Start(ctx); err != nil {
		return 0, c.runner.daemon(fmt.Errorf("start exec: %w", err))
	}
	if started != nil {
		started(int32(p.Pid()))
	}
	select {
	case s := <-wait:
		readAll(p)
		return s.ExitCode(), s.Error()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// readAll returns when everything that a process wrote has been read, unless
// it left others behind that hold its output open.
func readAll(p containerd.Process) {
	read := make(chan struct{})
	go func() { p.IO().Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(2 * time.Second):
	}
}

// Stop sends the signal and, after the grace time, SIGKILL; it returns when
// the first process has ended. The result tells whether SIGKILL was needed.
func (c *Container) Stop(ctx context.Context, signal syscall.Signal, grace time.Duration) (killed bool, err error) {
	if c.ended() {
		return false, nil
	}
	if !heeds(c.PID(), signal) {
		grace = 0 // the kernel drops it
	}
	if err := unix.PidfdSendSignal(c.pidfd, unix.Signal(signal), nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.exited:
		return false, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	c.Kill()
	select {
	case <-c.exited:
		return true, ctx.Err()
	case <-time.After(10 * time.Second):
		return true, fmt.Errorf("container %s is still there 10s after SIGKILL", c.ID)
	}
}

// heeds reports whether the first process of a PID namespace takes notice of a
// signal: the kernel discards one that such a process neither handles nor
// blocks (to fetch it with sigwait or a signalfd).
func heeds(pid int, signal syscall.Signal) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return true
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		name, mask, _ := strings.Cut(line, ":")
		if name != "SigCgt" && name != "SigBlk" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil || bits&(1<<(uint(signal)-1)) != 0 {
			return true
		}
	}
	return false
}

func (c *Container) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// Kill ends the first process, and with its PID namespace all others, even
// when containerd does not answer.
func (c *Container) Kill() {
	if c.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	}
}

// Close releases what the agent itself holds; Remove does the rest.
func (c *Container) Close() {
	if c.pidfd >= 0 {
		_ = unix.Close(c.pidfd)
		c.pidfd = -1
	}
}

// exists reports whether an error says that the thing is there already.
func exists(err error) bool { return errdefs.IsAlreadyExists(err) }

// DeleteTask removes the task and its shim once the container has ended; the
// snapshot stays. Remove does it too.
func (c *Container) DeleteTask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(c.runner.namespace(ctx, c.namespace), 10*time.Second)
	defer cancel()
	// What stays is found again by Remove.
	_, _ = c.task.Delete(ctx)
}
