package settle

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// stateListen is TCP_LISTEN as /proc/net/tcp prints it.
const stateListen = "0A"

// Listening returns the TCP ports on which something listens in the network
// namespace of a process, sorted; nil when the process has ended.
func Listening(pid int) []uint16 {
	var ports []uint16
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if err != nil {
			continue
		}
		ports = append(ports, parseListening(f)...)
		_ = f.Close()
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// parseListening reads the format of /proc/net/tcp: "sl local rem st ...",
// addresses as HEX:PORT in hex.
func parseListening(r io.Reader) []uint16 {
	var ports []uint16
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || fields[3] != stateListen {
			continue
		}
		_, port, ok := strings.Cut(fields[1], ":")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(port, 16, 16)
		if err == nil {
			ports = append(ports, uint16(n))
		}
	}
	return ports
}
