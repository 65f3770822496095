package main

import "golang.org/x/sys/unix"

// isWait reports whether a call's number is that of a wait for events.
func isWait(nr int) bool {
	return nr == unix.SYS_EPOLL_WAIT || nr == unix.SYS_EPOLL_PWAIT || nr == unix.SYS_EPOLL_PWAIT2
}
