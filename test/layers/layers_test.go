package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/confinehq/confine/"

// pkg is what 'go list' tells of a package.
type pkg struct {
	ImportPath, Doc string
	GoFiles         []string
	// Imports are direct, Deps all.
	Imports, Deps []string
}

// list asks the go command for all packages of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,GoFiles,Imports,Deps", module+"...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages found", len(all))
	}
	return all
}

// below reports whether a package is one of these folders or below one.
func below(path string, folders []string) bool {
	for _, f := range folders {
		if path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return false
}

// TestOwnImports checks the way that dependencies point inside the module.
func TestOwnImports(t *testing.T) {
	rules := []struct {
		// from are folders; only are the folders that they may import from,
		// beside themselves.
		from string
		only []string
		why  string
	}{
		{"proto", nil, "the wire contracts depend on nothing of ours"},
		{"pkg/syscalls", nil, "tables depend on nothing"},
		{"pkg/rootfs", nil, "reading a root file system depends on nothing of ours"},
		{"pkg/analysis", []string{"pkg/syscalls", "pkg/rootfs"}, "the analysis is bytes in, facts and call sets out"},
		{"pkg", []string{"proto"}, "others import our libraries, so that these can't rest on what is internal"},
		{"plugins", []string{"pkg", "proto", "internal/version"}, "our monitors use what anybody's can use, and state our version"},
		{"cmd", []string{"internal"}, "a command is flags and signals; its work is in internal"},
		{"internal", []string{"pkg", "proto"}, "the system rests on its libraries"},
	}
	for _, p := range list(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if !below(rel, []string{r.from}) {
				continue
			}
			for _, i := range p.Imports {
				own, ok := strings.CutPrefix(i, module)
				if !ok || below(own, append(r.only, r.from)) {
					continue
				}
				t.Errorf("%s imports %s: %s", rel, own, r.why)
			}
		}
	}
}

// TestForeignImports keeps heavy or revealing dependencies out, also indirect
// ones.
func TestForeignImports(t *testing.T) {
	rules := []struct {
		from, never, why string
	}{
		{"pkg/analysis", "google.golang.org/grpc", "the analysis knows no network"},
		{"pkg/analysis", "google.golang.org/protobuf", "the analysis has its own types"},
		{"pkg/analysis", "github.com/containerd/containerd", "the analysis knows no containers"},
		{"pkg/analysis", "github.com/cilium/ebpf", "the analysis looks at files, not at kernels"},
		{"pkg/analysis", "net", "the analysis knows no network"},
		{"pkg/analysis", "log/slog", "libraries don't log"},
		{"pkg/seccomp", "google.golang.org/grpc", "profiles are files"},
		{"pkg/seccomp", "log/slog", "libraries don't log"},
		{"pkg/syscalls", "golang.org/x/sys", "tables are for every platform"},
		{"internal/server", "github.com/containerd/containerd/v2/client", "containers are the agent's"},
		{"internal/server", "github.com/cilium/ebpf", "the kernel is the monitor's"},
		{"internal/agent", "github.com/confinehq/confine/pkg/analysis", "analysis is the server's"},
		{"internal/agent", "github.com/cilium/ebpf", "the kernel is the monitor's"},
		{"cmd/confine-server", "github.com/containerd/containerd/v2/client", "containers are the agent's"},
		{"cmd/confine-agent", "github.com/nats-io", "the store is the server's"},
	}
	seen := map[string]bool{}
	for _, p := range list(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if !below(rel, []string{r.from}) {
				continue
			}
			seen[r.from] = true
			for _, d := range p.Deps {
				if below(d, []string{r.never}) {
					t.Errorf("%s depends on %s: %s", rel, d, r.why)
				}
			}
		}
	}
	for _, r := range rules {
		if !seen[r.from] {
			t.Errorf("rule for %s, which does not exist", r.from)
		}
	}
}

// TestPackagesAreDocumented checks that every package says what it is for.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range list(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		generated := below(rel, []string{"proto"})
		if len(p.GoFiles) > 0 && p.Doc == "" && !generated {
			t.Errorf("%s has no package comment", rel)
		}
	}
}
