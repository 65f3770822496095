package runner

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/signal"
)

const (
	// maxConfig bounds the configuration of an image, in bytes.
	maxConfig = 8 << 20
	// maxPorts bounds the exposed ports that are waited for.
	maxPorts = 1024
	// lastSignal is the greatest number of one (SIGRTMAX of the kernel).
	lastSignal = 64
)

// ImageConfig is what the image states about running it. It is read from the
// raw configuration, because the OCI type lacks Docker's healthcheck.
type ImageConfig struct {
	Entrypoint   []string
	Cmd          []string
	Env          []string
	User         string
	WorkingDir   string
	StopSignal   string
	ExposedPorts map[string]struct{}
	Healthcheck  *Healthcheck
}

// Healthcheck is Docker's.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", args...} or {"CMD-SHELL", command}.
	Test     []string
	Interval time.Duration
	Timeout  time.Duration
	// StartInterval is the interval while the container starts.
	StartInterval time.Duration
}

// Args returns the argument vector of the check, nil when there is none.
func (h *Healthcheck) Args() []string {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", h.Test[1]}
	default:
		return nil
	}
}

// parseConfig reads the configuration of an image, and the platform that it is
// for.
func parseConfig(raw []byte) (platform string, config ImageConfig, err error) {
	var doc struct {
		Architecture string
		OS           string
		Config       ImageConfig
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", ImageConfig{}, err
	}
	return doc.OS + "/" + doc.Architecture, doc.Config, nil
}

// stopSignal is what asks the container to end; SIGTERM, unless the image
// names another one that there is.
func (c ImageConfig) stopSignal() syscall.Signal {
	if sig, err := signal.ParseSignal(c.StopSignal); err == nil && sig > 0 && sig <= lastSignal {
		return sig
	}
	return syscall.SIGTERM
}

// TCPPorts returns the exposed TCP ports, sorted, each once.
func (c ImageConfig) TCPPorts() []uint16 {
	var ports []uint16
	for p := range c.ExposedPorts {
		num, proto, _ := strings.Cut(p, "/")
		if proto != "" && proto != "tcp" {
			continue
		}
		first, last, isRange := strings.Cut(num, "-")
		lo, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			continue
		}
		hi := lo
		if isRange {
			if hi, err = strconv.ParseUint(last, 10, 16); err != nil || hi < lo || hi-lo > 64 {
				hi = lo
			}
		}
		for ; lo <= hi; lo++ {
			ports = append(ports, uint16(lo))
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	return ports[:min(len(ports), maxPorts)]
}
