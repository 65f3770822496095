package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// containerd2 puts containerd 2 with its shim before that of the host.
func containerd2(t *testing.T) {
	t.Helper()
	cache := os.Getenv("CONFINE_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(dir, "confine")
	}
	dir := filepath.Join(cache, "containerd2")
	if _, err := os.Stat(filepath.Join(dir, "version")); err != nil {
		t.Skip("containerd 2 has not been built; scripts/install-containerd2 does it")
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	out, err := exec.Command("containerd", "--version").Output()
	if err != nil || !strings.Contains(string(out), "/v2 ") {
		t.Fatalf("this is no containerd 2: %q, %v", out, err)
	}
}

// TestContainerd2 does with containerd 2 what the other tests do with the
// host's own, Debian's 1.6.
func TestContainerd2(t *testing.T) {
	containerd2(t)
	for name, test := range map[string]func(*testing.T){
		"Run":         TestRunObservesAndLeavesNothing,
		"Proof":       TestProof,
		"Attach":      TestAttachWatchesAndLeavesTheContainerAlone,
		"CannotStart": TestRunsThatCannotStart,
		"End":         TestEndInTheMiddle,
		"Dies":        TestContainerdDies,
		"Crash":       TestLeftoversOfACrash,
	} {
		t.Run(name, test)
	}
}
