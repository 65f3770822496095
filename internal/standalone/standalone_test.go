package standalone_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/standalone"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// TestWithoutContainerd starts the pair on a machine whose containerd is down:
// the run says so, and everything ends.
func TestWithoutContainerd(t *testing.T) {
	dir := t.TempDir()
	monitor := filepath.Join(t.TempDir(), "poll")
	if out, err := exec.Command("go", "build", "-o", monitor, "../../examples/monitor-poll").CombinedOutput(); err != nil {
		t.Fatalf("build the monitor: %v\n%s", err, out)
	}
	conn, closer, err := standalone.Start(t.Context(), standalone.Options{
		Containerd: filepath.Join(dir, "no.sock"), PluginDir: dir, DataDir: filepath.Join(dir, "data"), Monitor: monitor,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := confinev1.NewOperatorServiceClient(conn)
	stream, err := client.Profile(t.Context(), &confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "redis", Monitor: monitor}})
	for err == nil {
		_, err = stream.Recv()
	}
	if text := status.Convert(err).Message(); !strings.Contains(text, "containerd") || !strings.Contains(text, "stage image") {
		t.Errorf("the run says %q, want something about containerd", text)
	}
	list, err := client.DescribeMonitors(t.Context(), &confinev1.DescribeMonitorsRequest{})
	if err != nil || len(list.GetNodes()) != 1 || len(list.GetNodes()[0].GetMonitors()) != 1 || !list.GetNodes()[0].GetMonitors()[0].GetWorks() {
		t.Errorf("monitors: %v, %v", list, err)
	}
	if _, _, err := standalone.Start(t.Context(), standalone.Options{DataDir: filepath.Join(dir, "data")}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second pair in the same folder: %v", err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
	if err := closer.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	_, closer, err = standalone.Start(t.Context(), standalone.Options{PluginDir: dir, DataDir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
}
