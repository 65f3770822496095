package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

type stressOptions struct {
	where
	namespace string
	count     uint32
	parallel  uint32
	env       []string
	timeout   time.Duration
	quiet     time.Duration
	storm     string
	stormTime time.Duration
}

func newStress(a *app) *cobra.Command {
	var o stressOptions
	cmd := &cobra.Command{
		Use:   "stress [--node NODE | --standalone] IMAGE [-- ARG...]",
		Short: "Run an image many times, to see whether a monitor loses events",
		Long: `stress runs an image many times under a monitor. Each round is expected to show
the same files; rounds that differ are named with the files that are missing or
extra. Nothing is analysed, and no profile is made.

--storm N adds N executions a second inside each container and as many on the
node: short processes, long paths, deep process trees, processes with many
threads. The storm knows what it executed, and the monitor is held against that.
--parallel K runs K containers at once; each executes a file of its own, which
must be seen there, once, and nowhere else.

Exit codes: 0 all rounds agree and nothing was lost, 1 failed, 2 usage, 3 rounds
differ, failed or mixed, or events were lost.`,
		Example: `  confinectl stress --node n1 --monitor ebpf --count 100 nginx
  confinectl stress --node n1 --count 20 --parallel 8 --storm 1000 redis
  confinectl stress --standalone --count 5 --storm max busybox -- sleep 1000`,
	}
	f := cmd.Flags()
	o.where.addFlags(f)
	f.StringVar(&o.namespace, "namespace", "", "containerd namespace (default \"default\")")
	f.Uint32Var(&o.count, "count", 100, "how many containers")
	f.Uint32Var(&o.parallel, "parallel", 1, "how many at once")
	f.StringArrayVar(&o.env, "env", nil, "KEY=VALUE added to the image's environment; repeatable")
	f.DurationVar(&o.timeout, "timeout", 0, "limit of one container's start (default 30s)")
	f.DurationVar(&o.quiet, "quiet-period", 0, "time without new files after readiness (default 500ms)")
	f.StringVar(&o.storm, "storm", "", "executions a second inside each container and on the node; max for as many as it does")
	f.DurationVar(&o.stormTime, "storm-time", 0, "with --storm: how long, in each round (default 1s)")
	output := outputFlag(cmd, "text", "json")
	a.completeWhere(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		req, err := o.request(cmd, args)
		if err != nil {
			return err
		}
		if err := o.possible(cmd, a); err != nil {
			return err
		}
		report, err := a.runStress(cmd.Context(), o, req)
		if err != nil {
			return usageOf(cmd, err)
		}
		if *output == "json" {
			err = writeProto(a.out, report)
		} else {
			err = writeStress(a.out, report)
		}
		if err == nil && !report.GetPassed() {
			err = errIncomplete
		}
		return err
	}
	return cmd
}

// request checks the command line and builds what the server is asked.
func (o *stressOptions) request(cmd *cobra.Command, args []string) (*confinev1.StressRequest, error) {
	image, command, err := splitArgs(cmd, args)
	if err != nil {
		return nil, err
	}
	if image == "" {
		return nil, usagef(cmd, "IMAGE is missing")
	}
	if err := o.where.check(cmd); err != nil {
		return nil, err
	}
	switch {
	case o.count == 0 || o.parallel == 0:
		return nil, usagef(cmd, "--count and --parallel begin at 1")
	case o.timeout < 0 || o.quiet < 0 || o.stormTime < 0:
		return nil, usagef(cmd, "--timeout, --quiet-period and --storm-time can't be negative")
	case o.stormTime > 0 && o.storm == "":
		return nil, usagef(cmd, "--storm-time needs --storm")
	}
	if err := checkEnv(cmd, o.env); err != nil {
		return nil, err
	}
	spec := &confinev1.StressSpec{
		Image: image, Namespace: o.namespace, Monitor: o.monitor, Count: o.count, Parallel: o.parallel, Args: command, Env: o.env,
		Timeout: positive(o.timeout), Quiet: positive(o.quiet),
	}
	if o.storm != "" {
		rate, err := stormRate(o.storm)
		if err != nil {
			return nil, usagef(cmd, "--storm %q is neither a number of executions a second nor max", o.storm)
		}
		spec.Storm = &confinev1.Storm{Rate: rate, Time: positive(o.stormTime)}
	}
	return &confinev1.StressRequest{Node: o.node, Spec: spec}, nil
}

// positive is nil for a duration that isn't set.
func positive(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

// stormRate reads --storm; 0 stands for max.
func stormRate(text string) (uint32, error) {
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n == 0 {
		err = errors.New("no storm")
	}
	return uint32(n), err
}

// runStress carries out the request and shows progress.
func (a *app) runStress(ctx context.Context, o stressOptions, req *confinev1.StressRequest) (*confinev1.StressReport, error) {
	client, closer, err := a.operator(ctx, o.standalone, o.local)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	monitor := first(req.GetSpec().GetMonitor(), "ebpf")
	title := fmt.Sprintf("Stressing monitor %s with %d × %s", monitor, req.GetSpec().GetCount(), req.GetSpec().GetImage())
	shown := term.NewStages(a.err, title, []string{"image", "rounds"}, a.quiet)
	report, err := receiveStress(ctx, client, req, shown)
	shown.Close(err != nil)
	return report, err
}

// receiveStress reads the stream up to the report.
func receiveStress(ctx context.Context, client confinev1.OperatorServiceClient, req *confinev1.StressRequest, shown *term.Stages) (*confinev1.StressReport, error) {
	stream, err := client.Stress(ctx, req)
	if err != nil {
		return nil, err
	}
	return follow(stream, (*confinev1.StressResponse).GetReport, shown, "the server ended the test without a report")
}
