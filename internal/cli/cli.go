// Package cli is confinectl: each verb in a file of its own, everything
// callable in process. What goes to standard output is the answer; progress,
// warnings and errors go to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/internal/version"
)

// Exit codes, a contract with scripts.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitIncomplete = 3
)

// Env is what a command sees of the world around it.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Getenv looks up an environment variable.
	Getenv func(string) string
	// Standalone starts a server and an agent in this process; nil where the
	// build has none. Closing waits until everything that a run made is gone.
	Standalone func(ctx context.Context, o StandaloneOptions) (grpc.ClientConnInterface, io.Closer, error)
}

// StandaloneOptions are what a user can set about --standalone.
type StandaloneOptions struct {
	// Containerd is the socket of containerd, "" for the usual one.
	Containerd string
	// PluginDir holds monitor plugins, "" for the usual places.
	PluginDir string
	// DataDir keeps results and facts, "" for the usual place.
	DataDir string
	// Monitor is the path of one more monitor's executable.
	Monitor string
}

// System is the environment of the process itself, without Standalone.
func System() Env {
	return Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
}

// app is one invocation.
type app struct {
	Env
	out, err *term.Output
	// server and certDir are the global flags.
	server, certDir string
	quiet           bool
}

// Main runs one command and returns the exit code.
func Main(ctx context.Context, args []string, env Env) int {
	a := &app{Env: env}
	a.out = term.NewOutput(env.Stdout, env.Getenv)
	a.err = term.NewOutput(env.Stderr, env.Getenv)
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	return a.exit(root.ExecuteContext(ctx))
}

// exit says what went wrong, once, and chooses the exit code.
func (a *app) exit(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errIncomplete):
		return exitIncomplete
	case errors.Is(err, errNotAllowed):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "confinectl: %v\n", usage)
		return exitUsage
	default:
		fmt.Fprintf(a.err, "%s %s\n", a.err.Styles.Bad.Render("confinectl:"), a.explainError(err))
		return exitFailed
	}
}

// NewRoot is the command tree without an environment, for manual pages.
func NewRoot() *cobra.Command {
	env := Env{Stdin: nil, Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }}
	a := &app{Env: env}
	a.out = term.NewOutput(env.Stdout, env.Getenv)
	a.err = term.NewOutput(env.Stderr, env.Getenv)
	return newRoot(a)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "confinectl",
		Short: "Make seccomp profiles of container images",
		Long: `confinectl makes a seccomp profile of a container image: it runs the image on a
node, watches what it loads, finds by static analysis every system call that the
code can reach, and proves the profile by running the image under it.

Exit codes: 0 done and proven, 1 failed, 2 usage, 3 made but incomplete or not proven.`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetVersionTemplate("confinectl {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef(cmd, "%v", err)
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", "", "address of the server: unix:///PATH, or HOST:PORT with mutual TLS (CONFINE_SERVER)")
	flags.StringVar(&a.certDir, "cert-dir", "", "folder of the certificate made by 'confinectl login' (CONFINE_CERT_DIR)")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress on standard error")
	root.AddCommand(
		newProfile(a), newStress(a), newAnalyze(a), newNodes(a), newMonitors(a), newProfiles(a), newShow(a),
		newExport(a), newExplain(a), newCVEs(a), newToken(a), newLogin(a), newVersion(a),
	)
	return root
}
