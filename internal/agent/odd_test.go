package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/confinehq/confine/internal/storm"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// oddImage has a shell, the odd program and one that ends at once, /bin/quick.
func oddImage(t *testing.T, name string, scripts map[string]string, cmd ...string) testImage {
	t.Helper()
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	build := exec.Command("go", "build", "-o", odd, "./testdata/odd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the odd program: %v\n%s", err, out)
	}
	plan := storm.Default("/none", "t")
	plan.Count = 1
	if err := plan.Prepare(dir); err != nil {
		t.Fatal(err)
	}
	img := busyboxImage("docker.io/library/"+name+":latest", v1.Config{Env: path, Cmd: cmd})
	img.files["bin/odd"], img.files["bin/quick"] = odd, filepath.Join(dir, storm.Program)
	img.files["mnt/none"], img.files["jail/bin/busybox"] = img.files["bin/quick"], img.files["bin/quick"]
	img.links["bin/mv"], img.links["bin/ln"], img.links["bin/chmod"] = "busybox", "busybox", "busybox"
	img.scripts = scripts
	return img
}

// sumOf is the digest of a file with some more behind it.
func sumOf(t *testing.T, file, tail string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append(b, tail...))
	return hex.EncodeToString(sum[:])
}

// filesAt lists the files of an observation whose path begins with base.
func filesAt(o *confinev1.Observation, base string) []*confinev1.FileSeen {
	var found []*confinev1.FileSeen
	for _, f := range o.GetFiles() {
		if strings.HasPrefix(f.GetPath(), base) {
			found = append(found, f)
		}
	}
	return found
}

// says reports whether a list has something of a kind about an object.
func says(list []*confinev1.Incomplete, kind, object string) bool {
	return slices.ContainsFunc(list, func(i *confinev1.Incomplete) bool {
		return i.GetKind() == kind && strings.HasPrefix(i.GetObject(), object)
	})
}

// observeOdd runs an odd image and returns what was seen.
func (a *runningAgent) observeOdd(id, image string) *confinev1.Observation {
	a.t.Helper()
	a.start(id, &confinev1.RunSpec{Image: image, Quiet: quick(), Timeout: durationpb.New(20 * time.Second)})
	return a.observation()
}

// fetch has the agent send a file, and returns what failed.
func (a *runningAgent) fetch(run string, f *confinev1.FileSeen) []*confinev1.Incomplete {
	a.t.Helper()
	a.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Upload{Upload: &confinev1.UploadCommand{
		RequestId: "u-" + f.GetPath(), Objects: []*confinev1.ObjectRef{{Path: f.GetPath(), Sha256: f.GetSha256(), Size: f.GetSize()}},
	}}})
	return a.next(func(m *confinev1.ConnectRequest) bool { return m.GetUploadReply() != nil }).GetUploadReply().GetFailed()
}

// sent checks that the agent can send the content of a file, whatever lies at
// its path.
func (a *runningAgent) sent(run string, f *confinev1.FileSeen) {
	a.t.Helper()
	if failed := a.fetch(run, f); len(failed) > 0 {
		a.t.Errorf("%s can't be sent: %v", f.GetPath(), failed)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if uint64(len(a.blobs[f.GetSha256()])) != f.GetSize() {
		a.t.Errorf("%s was sent with %d bytes, want %d", f.GetPath(), len(a.blobs[f.GetSha256()]), f.GetSize())
	}
}

// A process that lives less than a millisecond, many times and under names of
// which each is used once and then gone.
func TestShortLived(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "short", map[string]string{
		"run.sh": "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9 10; do cp /bin/quick /tmp/q$i; /tmp/q$i; /bin/quick; done\nsleep 1000\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "short")
	want := sumOf(t, img.files["bin/quick"], "")
	var names []string
	for _, f := range slices.Concat(filesAt(o, "/tmp/q"), filesAt(o, "/bin/quick")) {
		names = append(names, f.GetPath())
		if f.GetSha256() != want || f.GetExecuted() == 0 {
			t.Errorf("%v, want digest %s", f, want)
		}
	}
	if len(names) != 11 || len(o.GetIncomplete()) > 0 {
		t.Errorf("seen %v, incomplete %v", names, o.GetIncomplete())
	}
	a.endsClean(d, "r1")
}

// Programs without a path: their content is taken from the process that runs
// them, and can be sent when that process is gone.
func TestProgramsWithoutPath(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "pathless", map[string]string{
		"run.sh": "#!/bin/sh\nodd memory /bin/busybox memory busybox sleep 1000 &\nodd unlinked /bin/busybox unlinked busybox sleep 1000 &\nodd mounts /bin/busybox mounts busybox sleep 1000 &\nodd script &\nsleep 1000\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "pathless")
	for _, c := range []struct{ path, tail string }{
		{"/memfd:in_memory", "memory"}, {"/tmp/unlinked", "unlinked"}, {"/mnt/nested", "mounts"},
	} {
		found := filesAt(o, c.path)
		if len(found) != 1 || found[0].GetSha256() != sumOf(t, busybox, c.tail) || found[0].GetExecuted() != 1 || found[0].GetKind() != "elf" {
			t.Errorf("%s: %v; incomplete %v", c.path, found, o.GetIncomplete())
			continue
		}
		if !says(o.GetNotes(), "captured-object", c.path) {
			t.Errorf("the notes don't say that %s was captured: %v", c.path, o.GetNotes())
		}
		a.sent("r1", found[0])
	}
	if !says(o.GetIncomplete(), "unreadable-script", "/proc/self/fd/") && !says(o.GetIncomplete(), "unreadable-script", "/tmp/script") {
		t.Errorf("the unlinked script isn't reported: %v", o.GetIncomplete())
	}
	a.endsClean(d, "r1")
}

// A shell in a copy of the container's mounts runs itself from the original
// ones, where its new root doesn't lead, and is gone at once.
func TestProgramsOfOtherMounts(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "copied", map[string]string{
		"run.sh": "#!/bin/sh\nfor i in 1 2 3 4 5; do busybox unshare -m -U -r sh -c 'busybox true'; done\nsleep 1000\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "copied")
	found := filesAt(o, "/bin/busybox")
	if len(found) != 1 || found[0].GetSha256() != sumOf(t, busybox, "") || found[0].GetExecuted() < 10 {
		t.Errorf("%v, want busybox with all its executions", found)
	}
	if other := filesAt(o, "/(unreachable)"); len(other) > 0 || len(o.GetIncomplete()) > 0 {
		t.Errorf("unreachable %v, incomplete %v", other, o.GetIncomplete())
	}
	a.endsClean(d, "r1")
}

// One from memory that is gone at once is captured or reported, never lost.
func TestShortLivedFromMemory(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "memories", map[string]string{
		"run.sh": "#!/bin/sh\nfor i in 1 2 3 4 5; do odd memory /bin/quick $i quick; done\nsleep 1000\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "memories")
	found := filesAt(o, "/memfd:in_memory")
	if len(found) == 0 {
		t.Fatalf("nothing from memory in %v", pathsOf(o))
	}
	for _, f := range found {
		if f.GetSha256() == "" && !says(o.GetIncomplete(), "unreadable-object", f.GetPath()) {
			t.Errorf("%v is neither captured nor reported: %v", f, o.GetIncomplete())
		}
	}
	if len(found) != 5 && !says(o.GetIncomplete(), "unreadable-object", "/memfd:in_memory") {
		t.Errorf("%d of 5 contents, and nothing is reported", len(found))
	}
	a.endsClean(d, "r1")
}

// Both contents of a path that is replaced during the run are known, and sent.
func TestReplacedDuringTheRun(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "replaced", map[string]string{
		// Each is looked at before it goes: the test isn't about that race.
		"run.sh": `#!/bin/sh
cp /bin/quick /tmp/p; /tmp/p; sleep 1
cp /bin/quick /tmp/n; echo other >>/tmp/n; mv /tmp/n /tmp/p; /tmp/p; sleep 1
cp /bin/quick /tmp/s; echo some >>/tmp/s; /tmp/s; sleep 1
cat /bin/odd >/tmp/s; /tmp/s
sleep 1000
`,
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "replaced", Quiet: durationpb.New(2 * time.Second), Timeout: durationpb.New(40 * time.Second)})
	o := a.observation()
	got := map[string]*confinev1.FileSeen{}
	for _, f := range filesAt(o, "/tmp/p") {
		got[f.GetSha256()] = f
	}
	for _, tail := range []string{"", "other\n"} {
		f := got[sumOf(t, img.files["bin/quick"], tail)]
		if f == nil || f.GetExecuted() != 1 {
			t.Errorf("the content with %q isn't among %v", tail, filesAt(o, "/tmp/p"))
			continue
		}
		a.sent("r1", f)
	}
	if !says(o.GetNotes(), "replaced-object", "/tmp/p (2)") {
		t.Errorf("notes %v", o.GetNotes())
	}
	// What was written over in place is gone; nobody takes the new content for
	// the old one.
	old := sumOf(t, img.files["bin/quick"], "some\n")
	for _, f := range filesAt(o, "/tmp/s") {
		failed := a.fetch("r1", f)
		if f.GetSha256() == old && len(failed) != 1 {
			t.Errorf("the content of %s that is gone was sent: %v", f.GetPath(), failed)
		}
		if f.GetSha256() != old && len(failed) > 0 {
			t.Errorf("%s can't be sent: %v", f.GetPath(), failed)
		}
	}
	if n := len(filesAt(o, "/tmp/s")); n != 2 {
		t.Errorf("%d contents of /tmp/s, want 2", n)
	}
	a.endsClean(d, "r1")
}

// A file that is replaced after the observation is sent as it was executed; one
// that is written over is not sent at all.
func TestReplacedBeforeUpload(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "later", nil, "/bin/odd", "wait")
	img.scripts = map[string]string{"a.sh": "#!/bin/sh\nodd wait\n"}
	img.load(t, d)
	d.ctr(t, "run", "-d", "docker.io/library/later:latest", "later-1", "/bin/sh", "-c", "cp /bin/odd /tmp/one; cp /bin/odd /tmp/two; echo two >>/tmp/two; cp /a.sh /tmp/b.sh; (sleep 4; /tmp/one x; /tmp/two x; /tmp/b.sh) & while true; do sleep 1; done")
	defer d.ctr(t, "task", "rm", "-f", "later-1")
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{ContainerId: "later-1", Quiet: durationpb.New(5 * time.Second)})
	o := a.observation()
	d.ctr(t, "task", "exec", "--exec-id", "e1", "later-1", "/bin/sh", "-c",
		"cp /bin/quick /tmp/n; mv /tmp/n /tmp/one; cat /bin/quick >/tmp/two; echo '#!/bin/other' >/tmp/b.sh")
	one, two, script := filesAt(o, "/tmp/one"), filesAt(o, "/tmp/two"), filesAt(o, "/tmp/b.sh")
	if len(one) != 1 || len(two) != 1 || len(script) != 1 {
		t.Fatalf("files %v, incomplete %v", pathsOf(o), o.GetIncomplete())
	}
	a.sent("r1", one[0])
	a.say("r1", &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Lookup{Lookup: &confinev1.LookupCommand{
		RequestId: "l1", Paths: []string{"/tmp/one", "/tmp/two", "/tmp/b.sh"},
	}}})
	entries := a.next(func(m *confinev1.ConnectRequest) bool { return m.GetLookupReply() != nil }).GetLookupReply().GetEntries()
	if entries[0].GetSha256() != one[0].GetSha256() || entries[1].GetSha256() == two[0].GetSha256() || entries[2].GetSha256() == script[0].GetSha256() {
		t.Errorf("entries %v\nwant the first as it was executed, the others as they are", entries)
	}
	if failed := a.fetch("r1", two[0]); len(failed) != 1 {
		t.Errorf("what was written over was sent: %v", failed)
	}
	a.end("r1")
	a.runEnded()
}

// Another root: a path that leads to another file in the container's root is
// not taken for the one that was executed.
func TestOtherRoot(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "jail", map[string]string{
		"run.sh": "#!/bin/sh\nsleep 1\ncp /bin/odd /jail/bin/sleeper; cp /bin/busybox /bin/sleeper\nodd chroot /jail /bin/sleeper odd wait &\nodd chroot /jail /bin/busybox quick\nsleep 1000\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "jail", Quiet: durationpb.New(2 * time.Second), Timeout: durationpb.New(30 * time.Second)})
	o := a.observation()
	found := filesAt(o, "/bin/sleeper")
	if len(found) != 1 || found[0].GetSha256() != sumOf(t, img.files["bin/odd"], "") {
		t.Errorf("/bin/sleeper is %v, want the jail's", found)
	} else {
		a.sent("r1", found[0])
	}
	// The short one is gone before anybody can look: its path leads to another.
	if !says(o.GetIncomplete(), "changed-object", "/bin/busybox") && len(filesAt(o, "/bin/busybox")) != 2 {
		t.Errorf("nobody says that another /bin/busybox was executed: %v, %v", filesAt(o, "/bin/busybox"), o.GetIncomplete())
	}
	a.endsClean(d, "r1")
}

// Scripts whose interpreters are scripts are known, all of them.
func TestScriptsOfScripts(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "nested", map[string]string{
		"one": "#!/bin/sh\nexec sleep 1000\n", "two": "#!/one -x\n", "three": "#! /two\n", "run.sh": "#!/bin/sh\n/three\n",
	}, "/run.sh")
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "nested")
	for _, script := range []string{"/run.sh", "/three", "/two", "/one"} {
		found := filesAt(o, script)
		if len(found) != 1 || found[0].GetKind() != "script" || found[0].GetExecuted() != 1 {
			t.Errorf("%s: %v", script, found)
		}
	}
	a.endsClean(d, "r1")
}

// Interpreters that the kernel was told of by binfmt_misc.
func TestBinfmtMisc(t *testing.T) {
	d := startContainerd(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "binfmt_misc", 0, ""); err != nil {
		t.Skipf("the kernel has no binfmt_misc: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	name := fmt.Sprintf("confine-test-%d", os.Getpid())
	if err := os.WriteFile(filepath.Join(dir, "register"), []byte(":"+name+":M::CONFINE-TEST-"+fmt.Sprint(os.Getpid())+"::/bin/reader:"), 0); err != nil {
		t.Fatalf("register: %v", err)
	}
	defer os.WriteFile(filepath.Join(dir, name), []byte("-1"), 0)
	img := oddImage(t, "misc", map[string]string{
		"program": fmt.Sprintf("CONFINE-TEST-%d\n", os.Getpid()), "bin/reader": "",
		"run.sh": "#!/bin/sh\n/program\nsleep 1000\n",
	}, "/run.sh")
	delete(img.scripts, "bin/reader")
	img.files["bin/reader"] = img.files["bin/quick"]
	img.load(t, d)
	a := startAgent(t, d, "")
	o := a.observeOdd("r1", "misc")
	for _, path := range []string{"/program", "/bin/reader"} {
		if found := filesAt(o, path); len(found) != 1 || found[0].GetExecuted() != 1 || found[0].GetSha256() == "" {
			t.Errorf("%s: %v in %v", path, found, o)
		}
	}
	a.endsClean(d, "r1")
}

// Who enters a container from outside isn't part of it, unless asked for.
func TestEnteredFromOutside(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "entered", nil)
	img.load(t, d)
	d.ctr(t, "run", "-d", "docker.io/library/entered:latest", "entered-1", "/bin/sh", "-c", "while true; do /bin/true; sleep 0.2; done")
	defer d.ctr(t, "task", "rm", "-f", "entered-1")
	a := startAgent(t, d, "")
	for _, include := range []bool{false, true} {
		id := fmt.Sprint("r", include)
		a.start(id, &confinev1.RunSpec{
			ContainerId: "entered-1", Quiet: quick(), IncludeExec: include,
			// A shell that starts others: long ones, short ones, a fork between.
			Workload: []string{"ctr", "--address", d.socket, "-n", namespace, "task", "exec", "--exec-id", id, "entered-1",
				"/bin/odd", "chroot", "/", "/bin/sh", "sh", "-c", "/bin/quick; (/bin/quick; cp /bin/quick /tmp/mine; /tmp/mine); sleep 1; true"},
		})
		o := a.observation()
		for _, path := range []string{"/bin/odd", "/bin/quick", "/tmp/mine"} {
			if got := len(filesAt(o, path)) > 0; got != include {
				t.Errorf("included %v, %s among the files: %v", include, path, pathsOf(o))
			}
			if got := says(o.GetNotes(), "executed-from-outside", path); got == include {
				t.Errorf("included %v, notes about %s: %v", include, path, o.GetNotes())
			}
		}
		for _, rec := range o.GetRun().GetRecorded() {
			if !include && (rec.GetPath() == "/bin/quick" || rec.GetPath() == "/bin/odd") {
				t.Errorf("the calls of %s count", rec.GetPath())
			}
		}
		// The container's own processes execute the same file as those from outside.
		if len(filesAt(o, "/bin/busybox")) != 1 {
			t.Errorf("the container's own program isn't among %v", pathsOf(o))
		}
		a.end(id)
		a.runEnded()
	}
}

// Containers of a pod may share their processes' numbers: what the other does
// isn't taken for one's own, and an orphan isn't taken for a stranger.
func TestPodWithOnePIDNamespace(t *testing.T) {
	d := startContainerd(t)
	img := oddImage(t, "pod", map[string]string{
		"orphan.sh": "#!/bin/sh\nsleep 3\nwhile true; do cp /bin/quick /tmp/orphan; /tmp/orphan; sleep 1; done\n",
	})
	img.load(t, d)
	d.ctr(t, "run", "-d", "docker.io/library/pod:latest", "pause-1", "/bin/odd", "wait")
	defer d.ctr(t, "task", "rm", "-f", "pause-1")
	pid := strings.TrimSpace(taskPID(t, d, "pause-1"))
	share := "pid:/proc/" + pid + "/ns/pid"
	d.ctr(t, "run", "-d", "--with-ns", share, "docker.io/library/pod:latest", "other-1", "/bin/sh", "-c", "cp /bin/quick /tmp/theirs; while true; do /tmp/theirs; sleep 0.1; done")
	defer d.ctr(t, "task", "rm", "-f", "other-1")
	d.ctr(t, "run", "-d", "--with-ns", share, "docker.io/library/pod:latest", "mine-1", "/bin/sh", "-c", "(/orphan.sh &) ; cp /bin/quick /tmp/own; while true; do /tmp/own; sleep 0.1; done")
	defer d.ctr(t, "task", "rm", "-f", "mine-1")
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{ContainerId: "mine-1", Quiet: durationpb.New(4 * time.Second)})
	o := a.observation()
	for path, want := range map[string]bool{"/tmp/own": true, "/tmp/orphan": true, "/tmp/theirs": false} {
		if got := len(filesAt(o, path)) > 0; got != want {
			t.Errorf("%s among the files is %v, want %v: %v; notes %v", path, got, want, pathsOf(o), o.GetNotes())
		}
	}
	a.end("r1")
	a.runEnded()
}

func taskPID(t *testing.T, d *daemon, id string) string {
	t.Helper()
	for line := range strings.Lines(d.ctr(t, "task", "ls")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == id {
			return f[1]
		}
	}
	t.Fatalf("container %s has no task", id)
	return ""
}

// A container that makes as many processes as it can is stopped by its limit,
// not by the node's end; the agent goes on.
func TestForkBomb(t *testing.T) {
	d := startContainerd(t)
	oddImage(t, "bomb", nil, "/bin/odd", "bomb").load(t, d)
	oddImage(t, "after", nil, "/bin/odd", "wait").load(t, d)
	a := startAgentOf(t, d, func(c *config) { c.PidsLimit = 200 })
	a.start("r1", &confinev1.RunSpec{Image: "bomb", Quiet: durationpb.New(3 * time.Second), Timeout: durationpb.New(10 * time.Second)})
	o := a.observation()
	if !says(o.GetIncomplete(), "too-many-processes", "") {
		t.Errorf("the limit isn't told: %v", o.GetIncomplete())
	}
	if o.GetRun().GetLost() > 0 && !says(o.GetIncomplete(), "lost-events", "") {
		t.Error("losses aren't told")
	}
	a.endsClean(d, "r1")
	if o := a.observeOdd("r2", "after"); len(filesAt(o, "/bin/odd")) != 1 {
		t.Errorf("after the bomb: %v", o)
	}
	a.endsClean(d, "r2")
}
