package standalone_test

import (
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
	conn, closer, err := standalone.Start(t.Context(), standalone.Options{
		Containerd: filepath.Join(dir, "no.sock"), PluginDir: dir, DataDir: filepath.Join(dir, "data"),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := confinev1.NewOperatorServiceClient(conn)
	stream, err := client.Profile(t.Context(), &confinev1.ProfileRequest{Spec: &confinev1.RunSpec{Image: "redis"}})
	for err == nil {
		_, err = stream.Recv()
	}
	if text := status.Convert(err).Message(); !strings.Contains(text, "containerd") || !strings.Contains(text, "stage image") {
		t.Errorf("the run says %q, want something about containerd", text)
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
