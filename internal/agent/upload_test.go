package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// hostSecret is a file of the node that no container may lead to.
const hostSecret = "/etc/passwd"

// trap leads out of its root wherever somebody follows a link carelessly.
func trap() testImage {
	img := busyboxImage("docker.io/library/trap:latest", v1.Config{Env: path, Cmd: []string{"true"}})
	img.scripts = map[string]string{"etc/own": "of the image", "b\xe4d/na\xffme": "x"}
	for name, target := range map[string]string{
		"absolute": hostSecret, "up": "../../../../../.." + hostSecret, "init": "/proc/1/root" + hostSecret,
		"self": "/proc/self/root" + hostSecret, "loop": "loop", "loop-a": "loop-b", "loop-b": "loop-a", "good": "/etc/own",
	} {
		img.links["links/"+name] = target
	}
	return img
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func object(path string, content []byte) *confinev1.ObjectRef {
	return &confinev1.ObjectRef{Path: path, Sha256: digest(content), Size: uint64(len(content))}
}

func (s *fakeServer) upload(run string, objects ...*confinev1.ObjectRef) *confinev1.UploadReply {
	s.t.Helper()
	s.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Upload{Upload: &confinev1.UploadCommand{RequestId: "u", Objects: objects}}})
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetUploadReply() != nil }).GetUploadReply()
}

func (s *fakeServer) lookup(run string, paths ...string) []*confinev1.LookupEntry {
	s.t.Helper()
	s.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Lookup{Lookup: &confinev1.LookupCommand{RequestId: "l", Paths: paths}}})
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetLookupReply() != nil }).GetLookupReply().GetEntries()
}

// TestFilesOfTheRootAlone asks for files after the container has ended: they
// are found, uploads go on where they broke off, and nothing leads out.
func TestFilesOfTheRootAlone(t *testing.T) {
	d := startContainerd(t)
	trap().load(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "trap", Quiet: quick()})
	a.observation()
	t.Run("upload", func(t *testing.T) { testUpload(t, a) })
	t.Run("lookup", func(t *testing.T) { testLookup(t, a) })
	a.endsClean(d, "r1")
}

func testUpload(t *testing.T, a *runningAgent) {
	program, secret, own := readFile(t, busybox), readFile(t, hostSecret), []byte("of the image")
	a.mu.Lock()
	a.breakUploads = 1
	a.mu.Unlock()
	bad := []*confinev1.ObjectRef{
		object("/etc/own", []byte("of the imagf")), object("/etc/own", []byte("longer than the image's")),
		object("/etc", own), object("/nothing", own), object("/dev/null", own), object("/links/loop", own),
		{Path: "/bin/sleep", Sha256: digest(program), Size: 1 << 40},
	}
	for _, link := range []string{"absolute", "up", "init", "self"} {
		bad = append(bad, object("/links/"+link, secret))
	}
	for _, o := range bad {
		reply := a.upload("r1", o)
		if len(reply.GetFailed()) != 1 || reply.GetUploaded() != 0 || reply.GetFailed()[0].GetObject() != o.GetPath() || reply.GetFailed()[0].GetDetail() == "" {
			t.Errorf("%v: %v", o, reply)
		}
	}
	reply := a.upload("r1", object("/bin/sh", program), object("/links/good", own))
	if len(reply.GetFailed()) != 0 || reply.GetUploaded() != 2 {
		t.Errorf("%v", reply)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for sum, content := range a.blobs {
		if digest(content) == digest(secret) || sum == digest(secret) {
			t.Error("a file of the node was sent")
		}
	}
	if string(a.blobs[digest(own)]) != string(own) || digest(a.blobs[digest(program)]) != digest(program) {
		t.Error("what was uploaded is not what was asked for")
	}
	if got, want := a.offsets[digest(program)], []uint64{0, 1 << 20}; !slices.Equal(got, want) {
		t.Errorf("the program was sent from %v, want from %v", got, want)
	}
}

func testLookup(t *testing.T, a *runningAgent) {
	secret := readFile(t, hostSecret)
	for _, e := range a.lookup("r1", "/links/absolute", "/links/up", "/links/init", "/links/self", "/links/loop", "/links/loop-a", "/nothing", "relative", "/bin/sleep/below") {
		if e.GetSha256() != "" || strings.Contains(string(e.GetContent()), string(secret)) || e.GetType() == "file" {
			t.Errorf("%v", e)
		}
	}
	entries := a.lookup("r1", "/links/good", "/bin/sleep", "/b\uFFFDd", "/", "/nothing", "/links/loop")
	if len(entries) != 6 {
		t.Fatalf("%d answers", len(entries))
	}
	if e := entries[0]; e.GetResolved() != "/etc/own" || e.GetType() != "file" || string(e.GetContent()) != "of the image" || e.GetSha256() != digest(e.GetContent()) || e.GetMode() != 0o755 {
		t.Errorf("%v", e)
	}
	if e := entries[1]; e.GetResolved() != "/bin/busybox" || e.GetSha256() != digest(readFile(t, busybox)) || len(e.GetContent()) != 0 {
		t.Errorf("%v", e)
	}
	if e := entries[3]; e.GetType() != "dir" || !slices.Contains(e.GetNames(), "bin") || !slices.Contains(e.GetNames(), "b\uFFFDd") {
		t.Errorf("%v", e)
	}
	if e := entries[4]; e.GetResolved() != "" || e.GetError() != "" {
		t.Errorf("what isn't there: %v", e)
	}
	if e := entries[5]; e.GetError() == "" {
		t.Errorf("a loop: %v", e)
	}
}
