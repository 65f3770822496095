package observe

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// A memory file is named as what it is, whoever reports it.
func TestMemoryFile(t *testing.T) {
	root, err := rootfs.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := New(context.Background(), root, nil, Options{})
	c.Handle(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: int32(os.Getpid()), Path: "memfd:jit"}}})
	c.Mapped(1, "/memfd:jit (deleted)")
	files := c.Finish().Files
	if len(files) != 1 || !files[0].GetMapped() || files[0].GetExecuted() != 1 || !strings.Contains(files[0].GetError(), "memory") {
		t.Errorf("files %v, want one in memory that was executed and mapped", files)
	}
}
