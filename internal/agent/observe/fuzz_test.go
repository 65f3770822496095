package observe

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// FuzzEvents hands a monitor's messages to a collector: it keeps what it can
// look at, says what it can't, and stays within its bounds.
func FuzzEvents(f *testing.F) {
	file := &confinev1.FileId{Inode: 3, Device: 4}
	for _, events := range [][]*confinev1.WatchResponse{
		{{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: 1 << 30, Path: "/bin/a", Filename: "/bin/s", Interpreter: "/bin/a", Nested: []string{"/bin/t"}}}},
			{Event: &confinev1.WatchResponse_Mapping{Mapping: &confinev1.Mapping{Pid: 1 << 30, Path: "/lib/x", Process: "/bin/a", File: file}}}},
		{{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: -1, Path: "memfd:x", Filename: "s", Origin: 7}}},
			{Event: &confinev1.WatchResponse_Exit{Exit: &confinev1.Exit{Pid: -1}}}},
		{{Event: &confinev1.WatchResponse_Denied{Denied: &confinev1.DeniedCall{Nr: 5, Process: "/bin/a"}}},
			{Event: &confinev1.WatchResponse_Lost{Lost: &confinev1.Lost{Count: 2}}}, {}},
	} {
		raw, err := proto.Marshal(&confinev1.Batch{Events: events})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	dir := f.TempDir()
	for name, text := range map[string]string{"bin/a": "\x7fELF", "bin/s": "#!/bin/t\n", "bin/t": "#! /bin/t x\n", "lib/x": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			f.Fatal(err)
		}
	}
	root, err := rootfs.NewDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, raw []byte) {
		batch := &confinev1.Batch{}
		if proto.Unmarshal(raw, batch) != nil {
			return
		}
		c := New(context.Background(), root, nil, Options{Recorded: true})
		var lost uint64
		for _, e := range batch.GetEvents() {
			c.Handle(e)
			lost += e.GetLost().GetCount()
		}
		if c.Lost() != lost {
			t.Errorf("lost %d, want %d", c.Lost(), lost)
		}
		if calls, counts := c.Refused(); len(calls) != len(counts) {
			t.Errorf("%d refused calls with %d counts", len(calls), len(counts))
		}
		seen := c.Finish()
		for _, s := range seen.Files {
			if s.GetPath() == "" || s.GetSha256() == "" && s.GetError() == "" && s.GetKind() == "" {
				t.Errorf("nothing is said about %v", s)
			}
		}
		if _, err := proto.Marshal(&confinev1.Observation{Files: seen.Files, Incomplete: seen.Missing, Notes: seen.Notes}); err != nil {
			t.Errorf("what was seen can't be sent: %v", err)
		}
	})
}
