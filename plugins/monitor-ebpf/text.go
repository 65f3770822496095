package main

import (
	"bytes"
	"strings"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
)

// Flags of a text; enum text_flag in event.h.
const (
	textDeleted     = 1
	textPseudo      = 2
	textUnreachable = 4
	textTruncated   = 8
)

// memoryFile begins the path of a file without a place in a file system.
const memoryFile = "memfd:"

// texts is the variable part of a record.
type texts struct {
	path, filename, interp, cwd string
	args                        []string // the first ones, of a script only
	reachable                   bool     // path lies below the process's root
	truncated                   bool     // at least one text isn't whole
}

func splitTexts(ev *bpf.MonitorEvent, data []byte) texts {
	out := texts{reachable: ev.Texts[textPath].Flags&(textPseudo|textUnreachable) == 0}
	for i, head := range ev.Texts {
		if head.Flags&textTruncated != 0 {
			out.truncated = true
		}
		n := int(head.Len)
		if n > len(data) {
			out.truncated = true
			break
		}
		part := data[:n]
		data = data[n:]
		switch i {
		case textPath:
			if n > 0 || head.Flags != 0 || ev.Inode != 0 {
				out.path = pathText(part, head.Flags)
			}
		case textFilename:
			out.filename = valid(bytes.TrimRight(part, "\x00"))
		case textInterp:
			out.interp = valid(bytes.TrimRight(part, "\x00"))
		case textCwd:
			out.cwd = pathText(part, head.Flags)
		case textArgs:
			out.args = strings.Split(valid(bytes.TrimRight(part, "\x00")), "\x00")
		}
	}
	return out
}

// pathText puts a path together from its components, the last one first.
func pathText(part []byte, flags uint16) string {
	names := strings.Split(strings.TrimSuffix(string(part), "\x00"), "\x00")
	var b strings.Builder
	switch {
	case flags&textPseudo != 0 && len(names) == 1:
		b.WriteString(names[0])
		if !strings.HasPrefix(names[0], memoryFile) {
			return valid([]byte("anon:" + names[0]))
		}
		return valid([]byte(b.String()))
	case flags&textTruncated != 0:
		b.WriteString("(truncated)")
	case flags&(textUnreachable|textPseudo) != 0:
		b.WriteString("(unreachable)")
	}
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	if flags&textDeleted != 0 {
		b.WriteString(" (deleted)")
	}
	return valid([]byte(b.String()))
}

// fromDirFD resolves the name that the kernel makes up for execveat,
// /dev/fd/N or /dev/fd/N/PATH, with the file that N stood for.
func fromDirFD(filename, base string) string {
	rest, ok := strings.CutPrefix(filename, "/dev/fd/")
	if !ok {
		return filename
	}
	_, below, ok := strings.Cut(rest, "/")
	if !ok {
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + below
}

// valid makes text fit for a protobuf string.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
