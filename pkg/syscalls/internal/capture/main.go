// Command capture writes what package syscalls knows of the parameters of
// calls, from a running kernel and its headers: internal/gen/parameters.txt,
// which go generate reads, so that generating needs no certain kernel. It needs
// root, a mounted tracefs and linux-libc-dev, and runs in the folder of package
// syscalls.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// headers hold constants that golang.org/x/sys/unix leaves out.
var headers = []string{
	"linux/futex.h", "linux/personality.h", "linux/membarrier.h", "linux/fadvise.h", "asm-generic/ioctls.h",
	"x86_64-linux-gnu/asm/prctl.h",
}

// events are the names of the calls whose kernel functions are called
// otherwise; key: name of the function.
var events = map[string]string{
	"newfstat": "fstat", "newlstat": "lstat", "newstat": "stat", "newuname": "uname", "sendfile64": "sendfile", "umount": "umount2",
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("capture: ")
	if err := run("/sys/kernel/tracing/events/syscalls", "/usr/include", "internal/gen/parameters.txt"); err != nil {
		log.Fatal(err)
	}
}

func run(tracing, include, out string) error {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("name kernel: %w", err)
	}
	var b bytes.Buffer
	release := regexp.MustCompile(`^[0-9.]+`).FindString(string(kernel))
	fmt.Fprintf(&b, "# Written by internal/capture: parameters of calls from the tracepoints of Linux %s,\n", strings.TrimSuffix(release, "."))
	fmt.Fprintf(&b, "# constants from its headers as linux-libc-dev has them.\n")
	if err := calls(&b, tracing); err != nil {
		return err
	}
	for _, h := range headers {
		if err := constants(&b, filepath.Join(include, h)); err != nil {
			return err
		}
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// calls writes a line "call NAME TYPE NAME, TYPE NAME..." for each call.
func calls(b *bytes.Buffer, tracing string) error {
	const prefix = "sys_enter_"
	dirs, err := filepath.Glob(filepath.Join(tracing, prefix+"*"))
	if err != nil || len(dirs) == 0 {
		return fmt.Errorf("find system calls in %s: is tracefs mounted there?", tracing)
	}
	field := regexp.MustCompile(`(?m)^\tfield:([^;]+);`)
	var lines []string
	for _, dir := range dirs {
		format, err := os.ReadFile(filepath.Join(dir, "format"))
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(filepath.Base(dir), prefix)
		if n, ok := events[name]; ok {
			name = n
		}
		var fields []string
		for _, m := range field.FindAllStringSubmatch(string(format), -1) {
			if f := m[1]; !strings.Contains(f, " common_") && !strings.HasSuffix(f, "__syscall_nr") {
				fields = append(fields, f)
			}
		}
		lines = append(lines, strings.TrimSpace("call "+name+" "+strings.Join(fields, ", ")))
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Fprintln(b, l)
	}
	return nil
}

// constants writes a line "constant NAME VALUE" for each number that a header
// defines.
func constants(b *bytes.Buffer, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read constants: %w", err)
	}
	re := regexp.MustCompile(`(?m)^\s*(?:#\s*define\s+)?([A-Z][A-Z0-9_]+)\s*(?:=\s*|\s)\(?(0x[0-9a-fA-F]+|[0-9]+|1\s*<<\s*[0-9]+)\)?\s*,?\s*(?:/\*.*)?$`)
	for _, m := range re.FindAllStringSubmatch(string(text), -1) {
		v, err := value(m[2])
		if err != nil {
			return fmt.Errorf("read constants: %s: %w", file, err)
		}
		fmt.Fprintf(b, "constant %s %#x\n", m[1], v)
	}
	return nil
}

func value(s string) (uint64, error) {
	if _, shift, ok := strings.Cut(s, "<<"); ok {
		n, err := strconv.ParseUint(strings.TrimSpace(shift), 10, 6)
		return 1 << n, err
	}
	return strconv.ParseUint(s, 0, 64)
}
