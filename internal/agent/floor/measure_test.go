package floor

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/confinehq/confine/pkg/syscalls"
)

// TestMeasure measures the installed runtime both ways. What both floors must
// hold is the runtime's last call; without no_new_privs the privileges are
// dropped under the filter.
func TestMeasure(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	names := map[bool][]string{}
	for _, nnp := range []bool{true, false} {
		ctx := namespaces.WithNamespace(t.Context(), "test")
		spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "floor"})
		if err != nil {
			t.Fatal(err)
		}
		spec.Process.NoNewPrivileges = nnp
		calls, err := Measure(ctx, path, spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, nr := range calls {
			name, _ := syscalls.Name(syscalls.AMD64, int(nr))
			names[nnp] = append(names[nnp], name)
		}
		slices.Sort(names[nnp])
		t.Logf("no_new_privs %v: %v", nnp, names[nnp])
		if !slices.Contains(names[nnp], "execve") {
			t.Errorf("no_new_privs %v: execve is missing", nnp)
		}
		if slices.Contains(names[nnp], "pivot_root") {
			t.Errorf("no_new_privs %v: holds a call of before the filter", nnp)
		}
	}
	for _, want := range []string{"capset", "setuid", "setgid"} {
		if !slices.Contains(names[false], want) {
			t.Errorf("without no_new_privs %s is missing", want)
		}
	}
	if slices.Contains(names[true], "setuid") {
		t.Error("with no_new_privs, the user is changed before the filter is loaded")
	}
}
