package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/analysis"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// maxTimeout bounds one observation.
	maxTimeout = 24 * time.Hour
	// maxSpec bounds each list of a request, in items.
	maxSpec = 1000
)

// Profile implements confine.v1.OperatorService.
func (s *Server) Profile(req *confinev1.ProfileRequest, stream grpc.ServerStreamingServer[confinev1.ProfileResponse]) error {
	if err := checkSpec(req.GetSpec()); err != nil {
		return err
	}
	if !s.enter() {
		return errStopping
	}
	defer s.active.Done()
	r, err := s.newRun(stream.Context(), req.GetNode(), req.GetSpec())
	if err != nil {
		return err
	}
	result, err := follow(r, func() (*confinev1.Result, error) { return s.carryOut(stream.Context(), r) }, func(p *confinev1.Progress) error {
		return stream.Send(&confinev1.ProfileResponse{Event: &confinev1.ProfileResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	return stream.Send(&confinev1.ProfileResponse{Event: &confinev1.ProfileResponse_Result{Result: result}})
}

// follow shows the progress of a run while work carries it out. When it can't
// be shown, the run has lost its reason.
func follow[T any](r *run, work func() (T, error), show func(*confinev1.Progress) error) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := work()
		done <- outcome{v, err}
	}()
	var broken error // the operator does not listen any more
	say := func(p *confinev1.Progress) {
		if broken != nil {
			return
		}
		if broken = show(p); broken != nil {
			r.fail(status.Error(codes.Canceled, "the operator went away"))
		}
	}
	for {
		select {
		case p := <-r.news:
			say(p)
		case o := <-done:
			for len(r.news) > 0 {
				say(<-r.news)
			}
			return o.value, o.err
		}
	}
}

// enter counts a run, unless the server is stopping.
func (s *Server) enter() bool {
	s.activeMu.Lock()
	defer s.activeMu.Unlock()
	if s.noMoreRun {
		return false
	}
	s.active.Add(1)
	return true
}

// newRun finds the node and begins a run there.
func (s *Server) newRun(ctx context.Context, node string, spec *confinev1.RunSpec) (*run, error) {
	r, err := newRun(ctx, s, spec)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return r, s.begin(ctx, node, r, "")
}

// begin finds the node and gives it the run. command is the one that it has to
// know, "" for those that all agents know.
func (s *Server) begin(ctx context.Context, node string, r *run, command string) error {
	name, err := s.chooseNode(ctx, node)
	if err != nil {
		r.fail(context.Canceled)
		return err
	}
	if command != "" && !s.agents.knows(name, command) {
		r.fail(context.Canceled)
		return tooOld(name)
	}
	if err := r.holdCapture(); err != nil {
		r.fail(err)
		r.release()
		return err
	}
	if !s.agents.begin(name, r) {
		r.release()
		r.fail(context.Canceled)
		return status.Errorf(codes.FailedPrecondition, "node %s is not connected; start its agent ('systemctl start confine-agent' there)", name)
	}
	return nil
}

// chooseNode finds the node that the operator means.
func (s *Server) chooseNode(ctx context.Context, name string) (string, error) {
	connected := s.agents.connected()
	if slices.Contains(connected, name) {
		return name, nil
	}
	if name != "" {
		return "", s.absentNode(ctx, name, connected)
	}
	switch len(connected) {
	case 1:
		return connected[0], nil
	case 0:
		return "", status.Error(codes.FailedPrecondition, "no node is connected; join one with 'confinectl token create' here and 'confine-agent --server HOST:PORT --token TOKEN' there")
	}
	return "", status.Errorf(codes.InvalidArgument, "%d nodes are connected (%s); name one with --node", len(connected), someOf(connected))
}

func (s *Server) absentNode(ctx context.Context, name string, connected []string) error {
	known, err := s.store.Nodes(ctx)
	if err != nil {
		return storeError(err)
	}
	for _, n := range known {
		if n.GetName() == name {
			return status.Errorf(codes.FailedPrecondition, "node %s is not connected, it was last seen on %s; start its agent ('systemctl start confine-agent' there)",
				name, n.GetLastSeen().AsTime().Format(time.RFC3339))
		}
	}
	if len(connected) == 0 {
		return status.Errorf(codes.NotFound, "node %q is unknown, and no other is connected; 'confinectl nodes' lists those that joined", clean(name, 64))
	}
	return status.Errorf(codes.NotFound, "node %q is unknown; connected: %s", clean(name, 64), someOf(connected))
}

func someOf(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// checkSpec refuses what no node could carry out.
func checkSpec(spec *confinev1.RunSpec) error {
	bad := func(format string, args ...any) error { return status.Errorf(codes.InvalidArgument, format, args...) }
	switch image, container := spec.GetImage(), spec.GetContainerId(); {
	case spec.GetCapture() != nil && container != "":
		return bad("a trace and a running container exclude each other")
	case spec.GetCapture() == nil && spec.GetCaptureContainer() != "":
		return bad("a container inside a trace is named, and no trace")
	case spec.GetCapture() != nil && image == "":
		// The trace may tell it.
	case spec == nil || image == "" && container == "":
		return bad("name an image or a container to profile")
	case image != "" && container != "":
		return bad("an image and a container exclude each other")
	case image != "":
		if err := checkImage(image); err != nil {
			return err
		}
	}
	for what, d := range map[string]interface{ AsDuration() time.Duration }{"timeout": spec.GetTimeout(), "quiet period": spec.GetQuiet()} {
		if v := d.AsDuration(); v < 0 || v > maxTimeout {
			return bad("the %s %v is not between 0 and %v", what, v, maxTimeout)
		}
	}
	for what, list := range map[string][]string{
		"environment": spec.GetEnv(), "arguments": spec.GetArgs(), "mounts": spec.GetMounts(), "workload": spec.GetWorkload(), "files to load": spec.GetLoad(),
	} {
		if len(list) > maxSpec {
			return bad("%d %s are more than the limit of %d", len(list), what, maxSpec)
		}
	}
	if u := spec.GetOnUnresolved(); u != "" && !slices.Contains(analysis.UnresolvedWays(), analysis.Unresolved(u)) {
		return bad("%q is no way to go on with unresolved calls: give one of %v", clean(u, 64), analysis.UnresolvedWays())
	}
	for _, p := range spec.GetLoad() {
		if !canonical(p) {
			return bad("file to load %q: give an absolute path inside the container", clean(p, 128))
		}
	}
	return nil
}

func checkImage(image string) error {
	if _, err := reference.ParseDockerRef(image); err != nil {
		return status.Errorf(codes.InvalidArgument, "image %q: %v", clean(image, 128), err)
	}
	return nil
}

// ListNodes implements confine.v1.OperatorService.
func (s *Server) ListNodes(ctx context.Context, _ *confinev1.ListNodesRequest) (*confinev1.ListNodesResponse, error) {
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	connected := s.agents.connected()
	for _, n := range nodes {
		n.Connected = slices.Contains(connected, n.GetName())
	}
	return &confinev1.ListNodesResponse{Nodes: nodes}, nil
}

// ListProfiles implements confine.v1.OperatorService.
func (s *Server) ListProfiles(ctx context.Context, req *confinev1.ListProfilesRequest) (*confinev1.ListProfilesResponse, error) {
	all, err := s.store.Summaries(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	out := &confinev1.ListProfilesResponse{}
	for _, p := range all {
		if req.GetImage() == "" || sameImage(p, req.GetImage()) {
			out.Profiles = append(out.Profiles, p)
		}
	}
	return out, nil
}

// GetProfile implements confine.v1.OperatorService.
func (s *Server) GetProfile(ctx context.Context, req *confinev1.GetProfileRequest) (*confinev1.GetProfileResponse, error) {
	result, err := s.named(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &confinev1.GetProfileResponse{Result: result}, nil
}

// named returns the result with an id, or the newest of an image.
func (s *Server) named(ctx context.Context, name string) (*confinev1.Result, error) {
	result, err := s.store.Result(ctx, name)
	if err == nil {
		return result, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, storeError(err)
	}
	all, err := s.store.Summaries(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	for _, p := range all { // newest first
		if !sameImage(p, name) {
			continue
		}
		result, err := s.store.Result(ctx, p.GetId())
		if err != nil {
			return nil, storeError(err)
		}
		return result, nil
	}
	hint := "'confinectl profiles' lists them, 'confinectl profile' makes one"
	if like := alike(all, name); len(like) > 0 {
		hint = "there are results of " + strings.Join(like, ", ")
	}
	return nil, status.Errorf(codes.NotFound, "no result is stored for %q; %s", clean(name, 128), hint)
}

// alikeMost bounds the images that are named in place of one without a result.
const alikeMost = 3

// alike lists images with results whose name ends as a name does, such as
// team/app:1 for app.
func alike(all []*confinev1.ProfileSummary, name string) []string {
	last := func(image string) string {
		image = image[strings.LastIndexByte(image, '/')+1:]
		image, _, _ = strings.Cut(image, "@")
		image, _, _ = strings.Cut(image, ":")
		return image
	}
	var out []string
	for _, p := range all {
		if image := p.GetImage(); image != "" && last(image) == last(name) && !slices.Contains(out, image) && len(out) < alikeMost {
			out = append(out, image)
		}
	}
	return out
}

// sameImage compares a result's image with what a user typed: a reference in
// any of its forms, or a digest.
func sameImage(p *confinev1.ProfileSummary, typed string) bool {
	if p.GetImage() == typed || p.GetDigest() == typed && typed != "" {
		return true
	}
	ref, err := reference.ParseDockerRef(typed)
	return err == nil && ref.String() == p.GetImage()
}

// GetServerInfo implements confine.v1.OperatorService.
func (s *Server) GetServerInfo(context.Context, *confinev1.GetServerInfoRequest) (*confinev1.GetServerInfoResponse, error) {
	return &confinev1.GetServerInfoResponse{Version: version.Version}, nil
}
