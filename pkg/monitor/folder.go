package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// folderPrefix begins the name of the folder in the system's temporary one
// that holds a plugin's socket.
const folderPrefix = "confine-monitor-"

// folder is a private folder that is locked as long as its host lives. One
// that isn't locked was left behind by a host that was killed.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder, and removes those that were left behind.
func newFolder() (*folder, error) {
	sweep(os.TempDir())
	for {
		path, err := os.MkdirTemp("", folderPrefix)
		if err != nil {
			return nil, err
		}
		lock, err := lockFolder(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue // another host took it for one that was left behind
		}
		if err != nil {
			_ = os.RemoveAll(path)
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return &folder{path: path, lock: lock}, nil
	}
}

func (f *folder) remove() {
	_ = os.RemoveAll(f.path)
	_ = f.lock.Close()
}

// lockFolder locks a folder that still has its name when it is locked.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	if _, err := os.Lstat(path); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what killed hosts of the same user have left in a folder.
func sweep(dir string) {
	left, err := filepath.Glob(filepath.Join(dir, folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range left {
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || int(st.Uid) != os.Geteuid() {
			continue
		}
		lock, err := lockFolder(path)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}
}
