package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
)

const (
	// minPrefix is how much of an id must be given at least.
	minPrefix = 6
	// sandboxKind is the label by which containerd's CRI plugin tells pod
	// sandboxes from containers.
	sandboxKind = "io.cri-containerd.kind"
	// runcRuntimes begins the names of runtimes whose containers are processes
	// of this kernel, started by an OCI runtime of runc's kind.
	runcRuntimes = "io.containerd.runc."
)

// Existing is a container that somebody else runs. Nothing here changes it.
type Existing struct {
	ID        string
	Namespace string
	// PID is the host PID of its first process.
	PID  int
	Spec *specs.Spec
	// Image is what it was made from: the name alone when containerd doesn't
	// have it any more, nil when it was never told.
	Image *Image
	// Runtime is the OCI runtime's binary, "" for the default one.
	Runtime string

	exited chan struct{}
	exit   Exit
}

// Exited is closed when the first process has ended or can't be waited for
// any more; Exit tells which.
func (e *Existing) Exited() <-chan struct{} { return e.exited }

// Exit may be called after Exited is closed.
func (e *Existing) Exit() Exit { return e.exit }

// Attach finds a running container by its id, or by the beginning of it when
// no other has the same: in the given namespace, or in all of them when none
// is given. The wait for its end is over when ctx ends.
func (r *Runner) Attach(ctx context.Context, namespace, id string) (*Existing, error) {
	ns, c, err := r.find(ctx, namespace, id)
	if err != nil {
		return nil, err
	}
	ctx = namespaces.WithNamespace(ctx, ns)
	container, err := r.client.LoadContainer(ctx, c.ID)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("load container %s: %w", c.ID, err))
	}
	e := &Existing{ID: c.ID, Namespace: ns, exited: make(chan struct{})}
	if e.Runtime, err = runtimeBinary(c); err != nil {
		return nil, err
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, notRunning(c.ID, "has not been started")
	}
	if err != nil {
		return nil, r.daemon(fmt.Errorf("load task of %s: %w", c.ID, err))
	}
	status, err := task.Status(ctx)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("ask for the state of %s: %w", c.ID, err))
	}
	if status.Status != containerd.Running {
		return nil, notRunning(c.ID, "is "+string(status.Status))
	}
	e.PID = int(task.Pid())
	if e.Spec, err = container.Spec(ctx); err != nil {
		return nil, r.daemon(fmt.Errorf("read specification of %s: %w", c.ID, err))
	}
	if e.Spec.Process == nil || e.Spec.Linux == nil {
		return nil, fault.New(codes.FailedPrecondition, "container %s is no Linux container", c.ID)
	}
	e.Image = r.imageOf(ctx, c)
	wait, err := task.Wait(ctx)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("wait for container %s: %w", c.ID, err))
	}
	go func() {
		s := <-wait
		e.exit = Exit{Code: s.ExitCode(), Err: r.daemon(s.Error())}
		close(e.exited)
	}()
	return e, nil
}

func notRunning(id, what string) error {
	return fault.New(codes.FailedPrecondition, "container %s %s; start it, or profile its image instead", id, what)
}

// find returns a container and its namespace.
func (r *Runner) find(ctx context.Context, namespace, id string) (string, containers.Container, error) {
	list := []string{namespace}
	if namespace == "" {
		var err error
		if list, err = r.client.NamespaceService().List(ctx); err != nil {
			return "", containers.Container{}, r.daemon(fmt.Errorf("list namespaces: %w", err))
		}
	}
	type hit struct {
		namespace string
		container containers.Container
	}
	var exact, begun []hit
	for _, ns := range list {
		all, err := r.client.ContainerService().List(namespaces.WithNamespace(ctx, ns))
		if err != nil {
			return "", containers.Container{}, r.daemon(fmt.Errorf("list containers of namespace %s: %w", ns, err))
		}
		for _, c := range all {
			switch {
			case c.ID == id:
				exact = append(exact, hit{ns, c})
			case len(id) >= minPrefix && strings.HasPrefix(c.ID, id):
				begun = append(begun, hit{ns, c})
			}
		}
	}
	hits := exact
	if len(hits) == 0 {
		hits = begun
	}
	switch {
	case len(hits) == 0 && namespace == "":
		return "", containers.Container{}, fault.New(codes.NotFound, "container %s is in no namespace of containerd at %s (%s); list them with ctr -n NAMESPACE containers ls", id, r.cfg.Socket, strings.Join(list, ", "))
	case len(hits) == 0:
		return "", containers.Container{}, fault.New(codes.NotFound, "container %s is not in namespace %s of containerd at %s; name another with --namespace", id, namespace, r.cfg.Socket)
	case len(hits) > 1:
		var names []string
		for _, h := range hits {
			names = append(names, h.namespace+"/"+h.container.ID)
		}
		slices.Sort(names)
		return "", containers.Container{}, fault.New(codes.InvalidArgument, "container %s is ambiguous (%s); give the whole id and --namespace", id, strings.Join(names, ", "))
	}
	found := hits[0].container
	if found.Labels[sandboxKind] == "sandbox" {
		return "", containers.Container{}, fault.New(codes.InvalidArgument, "container %s is the sandbox of a pod; name one of the pod's containers", found.ID)
	}
	return hits[0].namespace, found, nil
}

// runtimeBinary returns the binary that a container's options name.
func runtimeBinary(c containers.Container) (string, error) {
	if !strings.HasPrefix(c.Runtime.Name, runcRuntimes) {
		return "", fault.New(codes.FailedPrecondition, "container %s runs under %s, whose system calls this node's kernel does not see; only containers of %s* can be watched", c.ID, c.Runtime.Name, runcRuntimes)
	}
	if c.Runtime.Options == nil {
		return "", nil
	}
	v, err := typeurl.UnmarshalAny(c.Runtime.Options)
	if err != nil {
		return "", nil //nolint:nilerr // options of a kind that isn't known name no binary
	}
	if o, ok := v.(*options.Options); ok {
		return o.GetBinaryName(), nil
	}
	return "", nil
}

// imageOf describes the image of a container as far as containerd knows it.
func (r *Runner) imageOf(ctx context.Context, c containers.Container) *Image {
	if c.Image == "" {
		return nil
	}
	known := &Image{Name: c.Image}
	image, err := r.client.GetImage(ctx, c.Image)
	if err != nil {
		return known
	}
	described, err := r.describe(ctx, c.Image, image)
	if err != nil {
		return known
	}
	return described
}
