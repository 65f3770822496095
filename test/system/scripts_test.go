package system

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOldPackageLists: packages are installed from the lists that are there
// when these can't be brought up to date.
func TestOldPackageLists(t *testing.T) {
	bin := t.TempDir()
	apt := "#!/bin/sh\n[ \"$1\" != update ] || exit 100\necho \"$@\" >>" + filepath.Join(bin, "asked") + "\n"
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", ". ../../scripts/lib.sh && apt_install hello")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apt_install ends with %v:\n%s", err, out)
	}
	asked, err := os.ReadFile(filepath.Join(bin, "asked"))
	if want := "install -y -qq --no-install-recommends hello\n"; err != nil || string(asked) != want {
		t.Errorf("apt-get was asked for %q (%v), want %q", asked, err, want)
	}
}
