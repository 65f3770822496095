package runner

import (
	"slices"
	"syscall"
	"testing"
)

func TestTCPPorts(t *testing.T) {
	_, c, err := parseConfig([]byte(`{"config":{"ExposedPorts":{"80/tcp":{},"80":{},"53/udp":{},"8000-8002/tcp":{},"x":{},"70000":{},"9-1":{}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.TCPPorts(), []uint16{9, 80, 8000, 8001, 8002}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}

func TestStopSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"": syscall.SIGTERM, "SIGQUIT": syscall.SIGQUIT, "quit": syscall.SIGQUIT, "3": syscall.SIGQUIT, "SIGRTMIN+3": syscall.Signal(37),
		"SIGNONE": syscall.SIGTERM, "0": syscall.SIGTERM, "-9": syscall.SIGTERM, "65": syscall.SIGTERM,
	} {
		if got := (ImageConfig{StopSignal: text}).stopSignal(); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// FuzzImageConfig reads what an image states, which its maker chose freely.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/x"],"Cmd":null,"Env":["A=b"],"StopSignal":"SIGQUIT","ExposedPorts":{"80/tcp":{},"1-65535":{}},"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000}}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["CMD"]},"StopSignal":"-1"}}`))
	f.Add([]byte(`{"config":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, c, err := parseConfig(raw)
		if err != nil {
			return
		}
		if ports := c.TCPPorts(); len(ports) > maxPorts || !slices.IsSorted(ports) {
			t.Errorf("ports %v", ports)
		}
		if sig := c.stopSignal(); sig < 1 || sig > lastSignal {
			t.Errorf("signal %d", sig)
		}
		if args := c.Healthcheck.Args(); args != nil && len(args) == 0 {
			t.Error("a healthcheck without a program")
		}
	})
}
