package storm

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// copyEvery is how many files share one inode: the others are hard links.
const copyEvery = 8

// Prepare puts the storm and the files that it executes into a folder of this
// machine, which the plan's Dir is where the storm runs.
func (p Plan) Prepare(dir string) error {
	if err := p.check(); err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("prepare storm: open %s: %w", dir, err)
	}
	defer unix.Close(root)
	if err := write(root, Program); err != nil {
		return err
	}
	deep, err := p.folders(root)
	if err != nil {
		return err
	}
	defer unix.Close(deep)
	link := ""
	for i, f := range p.files() {
		full := p.path(f)
		name := full[strings.LastIndexByte(full, '/')+1:]
		switch {
		case f.kind == "l":
			err = write(deep, name)
		case i%copyEvery == 0 || link == "":
			link = name
			err = write(root, name)
		default:
			err = unix.Linkat(root, link, root, name, 0)
		}
		if err != nil {
			return fmt.Errorf("prepare storm: file %s: %w", name, err)
		}
	}
	return nil
}

// folders makes those with long names and opens the last one. Their path may
// be too long to be used at once.
func (p Plan) folders(root int) (int, error) {
	at, err := unix.Dup(root)
	if err != nil || p.Longs == 0 {
		return at, err
	}
	for range p.steps() {
		name := strings.Repeat("x", stepSize)
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			unix.Close(at)
			return -1, fmt.Errorf("prepare storm: make folder: %w", err)
		}
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		if err != nil {
			return -1, fmt.Errorf("prepare storm: open folder: %w", err)
		}
		at = next
	}
	return at, nil
}

// write makes an executable file with the storm's code.
func write(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return fmt.Errorf("prepare storm: make %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(program)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("prepare storm: write %s: %w", name, err)
	}
	return nil
}
