package monitor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities of Linux by number (capability.h).
func capabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
		"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
		"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
		"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
		"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
		"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// capabilityNumbers translates names; "BPF" and "cap_bpf" are CAP_BPF.
func capabilityNumbers(names []string) ([]int, error) {
	known := capabilities()
	var out []int
	for _, name := range names {
		full := strings.ToUpper(name)
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		i := slices.Index(known, full)
		if i < 0 {
			return nil, fmt.Errorf("capability %q is unknown; see capabilities(7) for the names", name)
		}
		out = append(out, i)
	}
	return out, nil
}

// ownCapabilities reads the current thread's sets.
func ownCapabilities() (head unix.CapUserHeader, sets [2]unix.CapUserData, err error) {
	head.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return head, sets, fmt.Errorf("read capabilities: %w", err)
	}
	return head, sets, nil
}

// permitted leaves the names whose capabilities, with these numbers, the current
// thread has itself: nobody can give others.
func permitted(names []string, numbers []int) ([]string, error) {
	_, sets, err := ownCapabilities()
	if err != nil {
		return nil, err
	}
	var out []string
	for i, c := range numbers {
		if sets[c/32].Permitted&(1<<(c%32)) != 0 {
			out = append(out, names[i])
		}
	}
	return out, nil
}

// dropPrivileges takes from the current thread, and so from what it starts,
// everything but the capabilities with the given numbers, for good. The thread
// must not be used for anything else afterwards.
func dropPrivileges(keep []int) error {
	for c := range len(capabilities()) {
		if slices.Contains(keep, c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		// EINVAL: the kernel doesn't know it. EPERM: this process isn't
		// privileged enough to drop, and neither enough to gain.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("drop %s: %w", capabilities()[c], err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// setCapabilities reduces the thread's sets. Root's programs get what the
// bounding set holds; those of other users need it among the ambient ones.
func setCapabilities(keep []int) error {
	head, sets, err := ownCapabilities()
	if err != nil {
		return err
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	ambient := os.Geteuid() != 0
	for i := range sets {
		sets[i].Permitted &= mask[i]
		sets[i].Effective = sets[i].Permitted
		sets[i].Inheritable = 0
		if ambient {
			sets[i].Inheritable = sets[i].Permitted
		}
	}
	if err := unix.Capset(&head, &sets[0]); err != nil {
		return fmt.Errorf("reduce capabilities: %w", err)
	}
	if !ambient {
		return nil
	}
	for _, c := range keep {
		if sets[c/32].Permitted&(1<<(c%32)) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("keep %s: %w", capabilities()[c], err)
		}
	}
	return nil
}
