package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
)

// pullTime bounds one pull.
const pullTime = 15 * time.Minute

// Image is an image that is present and unpacked.
type Image struct {
	// Name is the normalised reference.
	Name string
	// Digest of the manifest or index that the name points to.
	Digest   string
	Platform string
	Config   ImageConfig

	image       containerd.Image
	snapshotter string
}

// NormalizeReference turns what a user types into a full reference.
func NormalizeReference(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fault.New(codes.InvalidArgument, "image name %q is not valid: %w; write it as name, name:tag or registry/name:tag", ref, err)
	}
	return named.String(), nil
}

// Image resolves a reference: from containerd's store when it is there (as it
// was typed, or normalised), else from its registry; and unpacks it.
func (r *Runner) Image(ctx context.Context, runID, namespace, ref, snapshotter string) (*Image, error) {
	if err := checkID(runID); err != nil {
		return nil, err
	}
	ctx = r.namespace(ctx, namespace)
	name, err := NormalizeReference(ref)
	if err != nil {
		return nil, err
	}
	ctx, err = r.hold(ctx, runID)
	if err != nil {
		return nil, err
	}
	image, err := r.client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) && ref != name {
		// Imported under the short name.
		var short containerd.Image
		if short, err = r.client.GetImage(ctx, ref); err == nil {
			image = short
		}
	}
	switch {
	case errdefs.IsNotFound(err):
		if image, err = r.pull(ctx, name, namespace, snapshotter); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, r.daemon(fmt.Errorf("look up image %s: %w", name, err))
	}
	return r.load(ctx, name, image, snapshotter)
}

// load describes an image and makes sure that it is unpacked.
func (r *Runner) load(ctx context.Context, name string, image containerd.Image, snapshotter string) (*Image, error) {
	described, err := r.describe(ctx, name, image)
	if err != nil {
		return nil, err
	}
	described.snapshotter = snapshotter
	unpacked, err := image.IsUnpacked(ctx, snapshotter)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("check snapshots of %s: %w", name, err))
	}
	if !unpacked {
		if err := image.Unpack(ctx, snapshotter); err != nil {
			return nil, r.daemon(fmt.Errorf("unpack %s: %w", name, err))
		}
	}
	return described, nil
}

// platforms lists those that the node has an image for, sorted.
func (r *Runner) platforms(ctx context.Context, image containerd.Image) []string {
	list, err := images.Platforms(ctx, image.ContentStore(), image.Target())
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range list {
		if p.OS != "" && p.OS != "unknown" { // attestations are for no platform
			out = append(out, platforms.Format(p))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// otherPlatform is the error of an image that this node can't run.
func otherPlatform(name, platform string) error {
	return fault.New(codes.FailedPrecondition, "image %s is for %s, but this node runs %s; use a node of that platform, or unpack it and let 'confinectl analyze FOLDER --entrypoint PROGRAM' find what its programs for x86-64, i386 or arm64 can call, which runs nothing", name, platform, platforms.DefaultString())
}

// describe reads what an image states.
func (r *Runner) describe(ctx context.Context, name string, image containerd.Image) (*Image, error) {
	desc, err := image.Config(ctx)
	if errdefs.IsNotFound(err) {
		if others := r.platforms(ctx, image); len(others) > 0 {
			return nil, otherPlatform(name, strings.Join(others, ", "))
		}
		return nil, fault.New(codes.FailedPrecondition, "image %s has no content for %s on this node; pull or import that platform: %w", name, platforms.DefaultString(), err)
	}
	if err != nil {
		return nil, r.daemon(fmt.Errorf("find configuration of %s: %w", name, err))
	}
	if desc.Size > maxConfig {
		return nil, fault.New(codes.FailedPrecondition, "configuration of image %s has %d bytes, the limit is %d", name, desc.Size, maxConfig)
	}
	raw, err := content.ReadBlob(ctx, image.ContentStore(), desc)
	if err != nil {
		return nil, r.daemon(fmt.Errorf("read configuration of %s: %w", name, err))
	}
	platform, config, err := parseConfig(raw)
	if err != nil {
		return nil, fault.New(codes.FailedPrecondition, "configuration of image %s is not valid: %w", name, err)
	}
	if parsed, err := platforms.Parse(platform); err != nil || !platforms.Default().Match(parsed) {
		return nil, otherPlatform(name, platform)
	}
	return &Image{Name: name, Digest: image.Target().Digest.String(), Platform: platform, Config: config, image: image}, nil
}

func (r *Runner) pull(ctx context.Context, name, namespace, snapshotter string) (containerd.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	host := config.HostOptions{}
	if dir := r.cfg.RegistryHosts; dir != "" {
		host.HostDir = config.HostDirFromRoot(dir)
	}
	opts := []containerd.RemoteOpt{
		containerd.WithPullUnpack,
		containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, host)})),
	}
	if snapshotter != "" {
		opts = append(opts, containerd.WithPullSnapshotter(snapshotter))
	}
	image, err := r.client.Pull(ctx, name, opts...)
	if err == nil {
		return image, nil
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	ns := namespace
	if ns == "" {
		ns = r.cfg.Namespace
	}
	hint := fmt.Sprintf("check the name, or import the image on the node: ctr --address %s -n %s images import FILE.tar", r.cfg.Socket, ns)
	var dial *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns), errors.As(err, &dial), errors.Is(err, context.DeadlineExceeded):
		return nil, fault.New(codes.NotFound, "image %s is not on the node and its registry cannot be reached: %w; %s", name, err, hint)
	case errdefs.IsNotFound(err):
		return nil, fault.New(codes.NotFound, "image %s is neither on the node nor in its registry; %s: %w", name, hint, err)
	case errdefs.IsUnavailable(err) && !r.alive():
		return nil, r.daemon(err)
	default:
		return nil, fault.New(codes.NotFound, "image %s is not on the node and cannot be pulled: %w; %s", name, err, hint)
	}
}

// alive reports whether containerd's socket accepts connections.
func (r *Runner) alive() bool {
	if _, err := os.Stat(filepath.Clean(r.cfg.Socket)); err != nil {
		return false
	}
	c, err := net.DialTimeout("unix", r.cfg.Socket, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// StopSignal is what asks the container to end.
func (i *Image) StopSignal() syscall.Signal { return i.Config.stopSignal() }
