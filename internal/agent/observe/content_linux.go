package observe

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// opened is an open regular file of this machine.
type opened interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// stamp tells one content of a file from another, as far as its inode does.
type stamp struct {
	device, inode uint64
	size          int64
	mtime, ctime  syscall.Timespec
}

func stampOf(f opened) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return stamp{}, fmt.Errorf("it is no regular file")
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil //nolint:unconvert // Dev differs per architecture
}

// Content is a file that was executed or mapped, held open, so that it stays
// readable when its path comes to mean another file or none.
type Content struct {
	file  opened
	stamp stamp
	// digest is set once the file has been read.
	digest string
	// closed is set by the collector for what nobody keeps.
	closed bool
}

// Size in bytes.
func (c *Content) Size() int64 { return c.stamp.size }

// ReadAt implements io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) { return c.file.ReadAt(p, off) }

// Close lets go of the file.
func (c *Content) Close() error { return c.file.Close() }

// Digest is the hex SHA-256 of what the file holds now, which isn't what was
// executed when it has been written since.
func (c *Content) Digest() (string, error) {
	if !c.changed() && c.digest != "" {
		return c.digest, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(c.file, 0, c.stamp.size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// changed reports whether the file was written, or its inode changed, since it
// was opened.
func (c *Content) changed() bool {
	now, err := stampOf(c.file)
	return err != nil || now != c.stamp
}

// clockSlack is how exactly one clock is expressed in the other.
const clockSlack = 100 * time.Microsecond

// wallTime turns a time since boot (CLOCK_BOOTTIME, ns) into one of the wall.
func wallTime(boot uint64) time.Time {
	var at time.Time
	best := time.Duration(1<<63 - 1)
	// Whoever is interrupted between two clocks gets a wrong difference.
	for range 5 {
		before := bootTime()
		now := time.Now()
		after := bootTime()
		if took := after - before; took < best {
			best = took
			at = now.Add(-(before + took/2 - time.Duration(boot)))
		}
	}
	return at
}

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// after reports whether the file was changed after an event; boot is 0 when
// nobody knows when that was. File systems stamp no later than a change
// happens, so that what was changed before is never taken for later.
func (s stamp) after(boot uint64) bool {
	if boot == 0 {
		return false
	}
	event := wallTime(boot).Add(clockSlack)
	return time.Unix(s.ctime.Unix()).After(event) || time.Unix(s.mtime.Unix()).After(event) && time.Unix(s.mtime.Unix()).Before(time.Now())
}
