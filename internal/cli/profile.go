package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"mvdan.cc/sh/v3/shell"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/seccomp"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// stages of a profile run, in the order in which they begin.
var stages = []string{"image", "run", "settle", "upload", "analyse", "prove"}

// profileFormats are the forms of the answer; "auto" is a summary for a
// person and the profile alone for a pipe.
var profileFormats = []string{"auto", "summary", "oci", "docker", "json"}

type profileOptions struct {
	where
	container  string
	namespace  string
	env        []string
	args       []string
	mounts     []string
	user       string
	timeout    time.Duration
	quiet      time.Duration
	workload   string
	noProof    bool
	noCache    bool
	noNewPrivs bool
	noArgs     bool
	load       []string
	snapshot   string
	capture    string
	captured   string // container in the capture
	exec       bool
	unresolved string
	file       string
}

func newProfile(a *app) *cobra.Command {
	var o profileOptions
	cmd := &cobra.Command{
		Use:   "profile [--node NODE | --standalone] IMAGE [-- ARG...]",
		Short: "Run an image on a node, and make and prove its profile",
		Long: `profile runs an image on a node under a monitor, analyses everything that it
executes and loads, and runs it again under the profile to prove it.

With --capture it runs nothing before the proof: what a trace that was recorded
elsewhere ('sysdig -w FILE') shows to be executed and mapped is looked up in the
image, and what the image lacks is reported. IMAGE may be left out when the trace
names it.

On a terminal it shows progress and a summary. When standard output is a pipe or
a file, it carries the profile alone (OCI and Docker read the same file).`,
		Example: `  confinectl profile --node n1 redis
  confinectl profile --node n1 redis > redis.json
  confinectl profile --node n1 --workload 'redis-benchmark -q -n 1000' redis
  confinectl profile --node n1 --container web-7
  confinectl profile --node n1 --capture web.scap --capture-container web-7 nginx
  confinectl profile --standalone nginx -- nginx -g 'daemon off;'`,
	}
	f := cmd.Flags()
	o.where.addFlags(f)
	f.StringVar(&o.container, "container", "", "attach to this running container instead of starting the image")
	f.StringVar(&o.namespace, "namespace", "", "containerd namespace (default \"default\")")
	f.StringArrayVar(&o.env, "env", nil, "KEY=VALUE added to the image's environment; repeatable")
	f.StringArrayVar(&o.args, "arg", nil, "argument that replaces the image's command; repeatable, or use -- ARG...")
	f.StringArrayVar(&o.mounts, "mount", nil, "bind mount SRC:DST[:ro]; repeatable")
	f.StringVar(&o.user, "user", "", "user in the container: NAME, UID, NAME:GROUP or UID:GID")
	f.DurationVar(&o.timeout, "timeout", 0, "limit of the observation (default 60s)")
	f.DurationVar(&o.quiet, "quiet-period", 0, "time without new files after readiness (default 2s)")
	f.StringVar(&o.workload, "workload", "", "command to run on the node against the container while it is watched")
	f.BoolVar(&o.noProof, "no-proof", false, "don't run again under the profile (exit code 3)")
	f.BoolVar(&o.noCache, "no-cache", false, "upload and analyse everything anew")
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "run the container with no_new_privileges")
	f.BoolVar(&o.noArgs, "no-args", false, "leave conditions on the calls' arguments out of the profile")
	f.StringArrayVar(&o.load, "load", nil, "program or module inside the container that counts as an entry point too; repeatable")
	unresolvedFlag(f, &o.unresolved)
	f.StringVar(&o.snapshot, "snapshotter", "", "containerd snapshotter")
	f.StringVar(&o.capture, "capture", "", "profile from this trace of sysdig (a file of this machine, up to 1 GiB, which is sent to the node) instead of watching a run")
	f.StringVar(&o.captured, "capture-container", "", "with --capture: container in the trace, by id, name or image; \"host\" for processes in none")
	f.BoolVar(&o.exec, "exec", false, "programs count, too, that somebody executes in the container from outside (ctr task exec, kubectl exec)")
	f.StringVarP(&o.file, "output-file", "f", "", "write the profile (or what -o says) to this file")
	output := outputFlag(cmd, profileFormats...)
	a.completeWhere(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, profileFormats...); err != nil {
			return err
		}
		req, err := o.request(cmd, args)
		if err != nil {
			return err
		}
		if err := o.possible(cmd, a); err != nil {
			return err
		}
		result, err := a.runProfile(cmd.Context(), o, req)
		if err != nil {
			return err
		}
		return a.deliver(result, *output, o.file)
	}
	return cmd
}

// request checks the command line and builds what the server is asked.
func (o *profileOptions) request(cmd *cobra.Command, args []string) (*confinev1.ProfileRequest, error) {
	image, command, err := splitArgs(cmd, args)
	if err != nil {
		return nil, err
	}
	switch {
	case o.capture == "" && o.captured != "":
		return nil, usagef(cmd, "--capture-container needs --capture")
	case o.capture != "" && o.container != "":
		return nil, usagef(cmd, "--capture and --container exclude each other")
	case image == "" && o.container == "" && o.capture == "":
		return nil, usagef(cmd, "IMAGE is missing")
	case image != "" && o.container != "":
		return nil, usagef(cmd, "IMAGE and --container exclude each other")
	}
	if err := o.where.check(cmd); err != nil {
		return nil, err
	}
	if o.timeout < 0 || o.quiet < 0 {
		return nil, usagef(cmd, "--timeout and --quiet-period can't be negative")
	}
	command = append(o.args, command...)
	if o.container != "" && (len(command)+len(o.env)+len(o.mounts) > 0 || o.user != "" || o.noNewPrivs) {
		return nil, usagef(cmd, "--container attaches to what runs already: --arg, --env, --mount, --user and --no-new-privs can't change it")
	}
	if err := checkEnv(cmd, o.env); err != nil {
		return nil, err
	}
	for _, m := range o.mounts {
		if !validMount(m) {
			return nil, usagef(cmd, "--mount %q is not SRC:DST[:ro] with absolute paths", m)
		}
	}
	for _, p := range o.load {
		if !path.IsAbs(p) {
			return nil, usagef(cmd, "--load %q is not an absolute path inside the container", p)
		}
	}
	if err := checkUnresolved(cmd, o.unresolved); err != nil {
		return nil, err
	}
	workload, err := splitCommand(o.workload)
	if err != nil {
		return nil, usagef(cmd, "--workload: %v", err)
	}
	spec := &confinev1.RunSpec{
		Image: image, ContainerId: o.container, Namespace: o.namespace,
		Env: o.env, Args: command, Mounts: o.mounts, User: o.user,
		Workload: workload, Monitor: o.monitor, NoProof: o.noProof,
		NoNewPrivs: o.noNewPrivs, NoCache: o.noCache, NoArgs: o.noArgs, Load: o.load, Snapshotter: o.snapshot,
		CaptureContainer: o.captured, IncludeExec: o.exec, OnUnresolved: o.unresolved,
	}
	if o.timeout > 0 {
		spec.Timeout = durationpb.New(o.timeout)
	}
	if o.quiet > 0 {
		spec.Quiet = durationpb.New(o.quiet)
	}
	return &confinev1.ProfileRequest{Node: o.node, Spec: spec}, nil
}

// splitArgs separates IMAGE from the container's arguments after "--".
func splitArgs(cmd *cobra.Command, args []string) (image string, command []string, err error) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, command = args[:dash], args[dash:]
	}
	switch len(args) {
	case 0:
		return "", command, nil
	case 1:
		return args[0], command, nil
	}
	return "", nil, usagef(cmd, "unexpected argument %q; arguments of the container go after --", args[1])
}

func validMount(m string) bool {
	parts := strings.Split(m, ":")
	if len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw" {
		return false
	}
	return (len(parts) == 2 || len(parts) == 3) && path.IsAbs(parts[0]) && path.IsAbs(parts[1])
}

// splitCommand splits a command line into words as a shell does, quotes and
// all, but expands nothing: variables stay as they are.
func splitCommand(line string) ([]string, error) {
	if line == "" {
		return nil, nil
	}
	return shell.Fields(line, func(name string) string { return "$" + name })
}

// runProfile carries out the request and shows progress.
func (a *app) runProfile(ctx context.Context, o profileOptions, req *confinev1.ProfileRequest) (*confinev1.Result, error) {
	client, closer, err := a.operator(ctx, o.standalone, o.local)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if o.capture != "" {
		if req.Spec.Capture, err = sendCapture(ctx, client, o.capture); err != nil {
			return nil, err
		}
	}
	shown := term.NewStages(a.err, title(req, o.standalone), stages, a.quiet)
	result, err := receive(ctx, client, req, shown)
	shown.Close(err != nil)
	return result, err
}

func title(req *confinev1.ProfileRequest, standalone bool) string {
	what := first(req.GetSpec().GetImage(), "container "+req.GetSpec().GetContainerId())
	if c := req.GetSpec().GetCapture(); c != nil {
		what = c.GetName()
		if image := req.GetSpec().GetImage(); image != "" {
			what = image + " from " + c.GetName()
		}
	}
	switch {
	case standalone:
		return "Profiling " + what + " on this machine"
	case req.GetNode() != "":
		return "Profiling " + what + " on " + req.GetNode()
	}
	return "Profiling " + what
}

// receive reads the stream up to the result.
func receive(ctx context.Context, client confinev1.OperatorServiceClient, req *confinev1.ProfileRequest, shown *term.Stages) (*confinev1.Result, error) {
	stream, err := client.Profile(ctx, req)
	if err != nil {
		return nil, err
	}
	return follow(stream, (*confinev1.ProfileResponse).GetResult, shown, "the server ended the run without a result")
}

// follow shows the progress that a stream tells, and returns what comes at its
// end; without is what to say when nothing does.
func follow[M interface{ GetProgress() *confinev1.Progress }, R any](stream interface{ Recv() (M, error) }, result func(M) *R, shown *term.Stages, without string) (*R, error) {
	var found *R
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && found != nil:
			return found, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New(without + "; look at its log ('journalctl -u confine-server')")
		case err != nil:
			return nil, err
		}
		if p := msg.GetProgress(); p != nil {
			shown.Update(term.Step{Stage: p.GetStage(), Done: p.GetDone(), Text: p.GetText(), Count: p.GetCount(), Total: p.GetTotal()})
		}
		if r := result(msg); r != nil {
			found = r
		}
	}
}

// deliver writes the answer to where the user wants it, says on standard
// error what is wrong with it, and chooses the exit code.
func (a *app) deliver(r *confinev1.Result, format, file string) error {
	summaryOut := a.out
	if format == "auto" {
		format = "oci"
		if a.out.Terminal && file == "" {
			format = "summary"
		}
	}
	if format != "summary" && (file == "" || !a.out.Terminal) {
		summaryOut = a.err // standard output belongs to the document, or to nobody
	}
	if format != "summary" {
		if err := a.deliverDocument(r, format, file); err != nil {
			return err
		}
	} else if file != "" {
		return a.deliverSummaryFile(r, file)
	}
	switch {
	case format == "summary" || summaryOut.Terminal && !a.quiet:
		writeSummary(summaryOut, r)
	default:
		writeVerdict(a.err, r, a.quiet)
	}
	return verdict(r)
}

func (a *app) deliverDocument(r *confinev1.Result, format, file string) error {
	data, err := document(r, format)
	if err != nil {
		return err
	}
	if file == "" {
		return write(a.out, data)
	}
	return writeFile(file, data)
}

func (a *app) deliverSummaryFile(r *confinev1.Result, file string) error {
	var b strings.Builder
	writeSummary(term.NewOutput(&b, func(string) string { return "" }), r)
	if err := writeFile(file, []byte(b.String())); err != nil {
		return err
	}
	return verdict(r)
}

// document is a result in a machine's format.
func document(r *confinev1.Result, format string) ([]byte, error) {
	if format == "json" {
		return protoJSON(r)
	}
	return profileDocument(r)
}

// profileDocument is the profile alone. Docker and OCI runtimes read the same
// flat form: names, conditions and architectures, nothing conditional.
func profileDocument(r *confinev1.Result) ([]byte, error) {
	if r.GetProfile() == nil {
		return nil, fmt.Errorf("result %s holds no profile: %s", r.GetId(), first(r.GetProof().GetDetail(), "see 'confinectl show "+r.GetId()+"'"))
	}
	data, err := r.GetProfile().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	p, err := seccomp.Read(data)
	if err != nil {
		return nil, fmt.Errorf("result %s: %w", r.GetId(), err)
	}
	return p.JSON()
}

// verdict is nil only for a complete and proven result.
func verdict(r *confinev1.Result) error {
	if len(r.GetIncomplete()) > 0 || r.GetProof().GetStatus() != "proven" {
		return errIncomplete
	}
	return nil
}
