package monitor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// executable is a monitor's file, opened and checked once: what is started is
// what was checked, and a folder that only root's override could enter is no
// obstacle for a process without it.
type executable struct {
	path   string
	file   *os.File
	sha256 string // hex
	script bool
}

// openExecutable opens a file whose SHA-256 must be want, unless that is "".
func openExecutable(path, want string) (*executable, error) {
	if want != "" {
		if raw, err := hex.DecodeString(want); err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("checksum %q is no SHA-256 in hex", want)
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	e := &executable{path: path, file: f}
	if err := e.check(want); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *executable) check(want string) error {
	info, err := e.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", e.path)
	}
	if info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable: chmod +x it, if it is a monitor", e.path)
	}
	head := make([]byte, 2)
	switch _, err := e.file.ReadAt(head, 0); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s is empty or nearly so, and no monitor: install it again", e.path)
	case err != nil:
		return fmt.Errorf("read %s: %w", e.path, err)
	}
	e.script = bytes.Equal(head, []byte("#!"))
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(e.file, 0, info.Size())); err != nil {
		return fmt.Errorf("read %s: %w", e.path, err)
	}
	e.sha256 = hex.EncodeToString(h.Sum(nil))
	if want != "" && !strings.EqualFold(e.sha256, want) {
		return fmt.Errorf("%s has SHA-256 %s, and %s is pinned: somebody changed it; install the right one, or pin the new one in the agent's configuration", e.path, e.sha256, want)
	}
	return nil
}

// run is the name to execute it by. A script's interpreter opens it again, by
// its path.
func (e *executable) run() string {
	if e.script {
		return e.path
	}
	return fmt.Sprintf("/proc/self/fd/%d", e.file.Fd())
}

func (e *executable) close() { _ = e.file.Close() }
