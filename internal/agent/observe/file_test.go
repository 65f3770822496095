package observe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// mapMemory maps a file that exists only in memory as code, until the test ends.
func mapMemory(t *testing.T, name, content string) {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte(content), 0); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(m) })
}

// Memory that a program makes code in is no library that is missing or changes,
// also when it can't be looked at any more; a library in memory is one.
func TestMadeCode(t *testing.T) {
	root, err := rootfs.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mapMemory(t, "code", "\x90\xc3")
	mapMemory(t, "library", "\x7fELF")
	c := New(context.Background(), root, keepAll{}, Options{})
	const gone = 1 << 30
	for _, name := range []string{"code", "library", "other"} {
		c.Mapped(int32(os.Getpid()), "/memfd:"+name+" (deleted)")
		c.Mapped(gone, "/memfd:"+name+" (deleted)")
	}
	seen := c.Finish()
	if len(seen.Notes) == 0 || seen.Notes[0].GetKind() != "jit" || seen.Notes[0].GetObject() != "/memfd:code" {
		t.Errorf("notes %v, want one on code that is made", seen.Notes)
	}
	if len(seen.Files) != 2 || seen.Files[0].GetPath() != "/memfd:library" || seen.Files[0].GetKind() != "elf" || seen.Files[1].GetError() == "" {
		t.Errorf("files %v, want the library, and one that nobody could read", seen.Files)
	}
	if len(seen.Missing) != 1 || seen.Missing[0].GetObject() != "/memfd:other" {
		t.Errorf("missing %v, want the one that nobody could read", seen.Missing)
	}
}

type keepAll struct{}

func (keepAll) Keep(string, *Content) bool { return true }

// A run isn't kept waiting by a file that is written again and again as it was.
func TestRewrittenFile(t *testing.T) {
	dir := t.TempDir()
	root, err := rootfs.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := New(context.Background(), root, keepAll{}, Options{})
	put := func(text string) {
		name := filepath.Join(dir, "new")
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name, filepath.Join(dir, "program")); err != nil {
			t.Fatal(err)
		}
		c.Handle(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: 1 << 30, Path: "/program"}}})
		c.work.Wait()
	}
	put("one")
	first := c.LastNew()
	put("one")
	if files, _ := c.Counts(); files != 2 {
		t.Fatalf("%d files, want 2: the second isn't noticed", files)
	}
	if again := c.LastNew(); again != first {
		t.Errorf("new again after %v, want not new", again.Sub(first))
	}
	put("two")
	second := c.LastNew()
	if !second.After(first) {
		t.Error("another content isn't new")
	}
	put("one")
	if again := c.LastNew(); again != second {
		t.Errorf("an earlier content is new after %v, want not new", again.Sub(second))
	}
	if files := c.Finish().Files; len(files) != 2 {
		t.Errorf("%d files in the end, want one for each content: %v", len(files), files)
	}
}

// A program of other mounts is the file of the container's root that has its
// number on the same file system, unchanged since, and no other one.
func TestUnreachableFile(t *testing.T) {
	dir := t.TempDir()
	root, err := rootfs.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "program")
	if err := os.WriteFile(name, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	is, err := stampOf(f)
	if err != nil {
		t.Fatal(err)
	}
	const long = 1 << 62 // nanoseconds since boot: after everything
	for what, test := range map[string]struct {
		inode, device, boot uint64
		want                string
	}{
		"the same":             {is.inode, is.device, long, "/program"},
		"another file":         {is.inode + 1, is.device, long, "/(unreachable)/program"},
		"of another device":    {is.inode, is.device + 1, long, "/(unreachable)/program"},
		"of no known device":   {is.inode, 0, long, "/(unreachable)/program"},
		"changed since it ran": {is.inode, is.device, 1, "/(unreachable)/program"},
	} {
		c := New(context.Background(), root, keepAll{}, Options{KernelTime: true})
		c.Handle(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{
			Pid: 1 << 30, Path: "(unreachable)/program", Time: test.boot, File: &confinev1.FileId{Inode: test.inode, Device: test.device},
		}}})
		files := c.Finish().Files
		if len(files) != 1 || files[0].GetPath() != test.want || (files[0].GetSha256() != "") != (test.want == "/program") {
			t.Errorf("%s: %v, want %s", what, files, test.want)
		}
	}
}
