package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// where says on which node containers are run.
type where struct {
	node       string
	standalone bool
	local      StandaloneOptions
}

func (w *where) addFlags(f *pflag.FlagSet) {
	f.StringVar(&w.node, "node", "", "node to run on; may be left out when one alone is connected")
	w.addLocalFlags(f)
}

// addLocalFlags adds the flags of --standalone.
func (w *where) addLocalFlags(f *pflag.FlagSet) {
	f.BoolVar(&w.standalone, "standalone", false, "run server and agent in this process, on this machine")
	f.StringVar(&w.local.Containerd, "containerd", "", "with --standalone: socket of containerd")
	f.StringVar(&w.local.PluginDir, "plugin-dir", "", "with --standalone: folder of monitor plugins")
	f.StringVar(&w.local.DataDir, "data-dir", "", "with --standalone: folder for results and facts")
}

func (w *where) check(cmd *cobra.Command) error {
	switch {
	case w.standalone && w.node != "":
		return usagef(cmd, "--node and --standalone exclude each other")
	case !w.standalone && w.local != (StandaloneOptions{}):
		return usagef(cmd, "--containerd, --plugin-dir and --data-dir need --standalone")
	}
	return nil
}

// possible checks that this build can do it.
func (w *where) possible(cmd *cobra.Command, a *app) error {
	if w.standalone && a.Standalone == nil {
		return usagef(cmd, "this build of confinectl has no --standalone")
	}
	return nil
}

// checkEnv checks variables that are given to a container.
func checkEnv(cmd *cobra.Command, env []string) error {
	for _, kv := range env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return usagef(cmd, "--env %q is not KEY=VALUE", kv)
		}
	}
	return nil
}
