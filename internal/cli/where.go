package cli

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// where says on which node containers are run, and what watches them there.
type where struct {
	node       string
	standalone bool
	// monitor is a name, or the path of a program on the node.
	monitor string
	local   StandaloneOptions
}

func (w *where) addFlags(f *pflag.FlagSet) {
	f.StringVar(&w.node, "node", "", "node to run on; may be left out when one alone is connected")
	f.StringVar(&w.monitor, "monitor", "", "monitor to watch with: a name ('confinectl monitors'), or the path on the node of one that its agent's configuration allows (default \"ebpf\")")
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
	return w.checkMonitor(cmd)
}

// checkMonitor checks a monitor that is named by a path. On this machine the
// user may name any; elsewhere the agent decides.
func (w *where) checkMonitor(cmd *cobra.Command) error {
	if !strings.Contains(w.monitor, "/") {
		return nil
	}
	if !w.standalone {
		if !path.IsAbs(w.monitor) {
			return usagef(cmd, "--monitor %q is not an absolute path on the node", w.monitor)
		}
		return nil
	}
	program, err := filepath.Abs(w.monitor)
	if err != nil {
		return usagef(cmd, "--monitor: %v", err)
	}
	if info, err := os.Stat(program); err != nil || !info.Mode().IsRegular() {
		return usagef(cmd, "--monitor: %s is no file", program)
	}
	w.monitor, w.local.Monitor = program, program
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
