package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// describes makes an agent answer with monitors; the channel gets a value for
// each time that it was asked.
func (a *scriptedAgent) describes(all ...*confinev1.MonitorStatus) <-chan struct{} {
	asked := make(chan struct{}, 16)
	a.script = func(m *confinev1.ConnectResponse) bool {
		c := m.GetDescribeMonitors()
		if c == nil {
			return false
		}
		a.say(m.GetRunId(), &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_MonitorsReply{
			MonitorsReply: &confinev1.MonitorsReply{RequestId: c.GetRequestId(), Monitors: all},
		}})
		asked <- struct{}{}
		return true
	}
	return asked
}

func (f *fixture) describe(node string) (*confinev1.DescribeMonitorsResponse, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	return f.operator.DescribeMonitors(ctx, &confinev1.DescribeMonitorsRequest{Node: node})
}

func TestDescribeMonitors(t *testing.T) {
	f := setup(t, newAnalyser())
	if list, err := f.describe(""); err != nil || len(list.GetNodes()) != 0 {
		t.Errorf("without a node: %v, %v", list, err)
	}
	f.agent.describes(
		&confinev1.MonitorStatus{Name: "ebpf", Works: true, Version: "1\x1b[2J", Sees: &confinev1.Capabilities{Exec: true}, Needs: []string{"CAP_BPF"}},
		&confinev1.MonitorStatus{Name: "bad", Problem: "it hung\nand more", Limits: make([]string, 5000)},
	)
	f.agent.mustConnect()
	old := newAgent(t, f.conn, "n2", f.root)
	old.hello.Commands = nil
	old.mustConnect()
	away := newAgent(t, f.conn, "n3", f.root).mustConnect()
	away.cut()
	f.eventually("n3 is away", func() bool {
		list, err := f.operator.ListNodes(t.Context(), &confinev1.ListNodesRequest{})
		return err == nil && len(list.GetNodes()) == 3 && !list.GetNodes()[2].GetConnected()
	})
	list, err := f.describe("")
	if err != nil || len(list.GetNodes()) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	good, tooOld, gone := list.GetNodes()[0], list.GetNodes()[1], list.GetNodes()[2]
	if good.GetProblem() != "" || !good.GetConnected() || len(good.GetMonitors()) != 2 || !good.GetMonitors()[0].GetWorks() || good.GetMonitors()[0].GetNeeds()[0] != "CAP_BPF" {
		t.Errorf("n1: %v", good)
	}
	if text := good.String(); strings.ContainsRune(text, 0x1b) || strings.Contains(text, `\x1b`) || strings.Contains(good.GetMonitors()[1].GetProblem(), "\n") || len(good.GetMonitors()[1].GetLimits()) > 100 {
		t.Errorf("what the node says is passed on as it is: %.200s", text)
	}
	if !strings.Contains(tooOld.GetProblem(), "too old") || !tooOld.GetConnected() || len(tooOld.GetMonitors()) != 0 || tooOld.GetInstalled()[0] != "ebpf" {
		t.Errorf("n2: %v", tooOld)
	}
	if !strings.Contains(gone.GetProblem(), "not connected") || gone.GetConnected() || gone.GetInstalled()[0] != "ebpf" {
		t.Errorf("n3: %v", gone)
	}

	if list, err := f.describe("n1"); err != nil || len(list.GetNodes()) != 1 || list.GetNodes()[0].GetNode() != "n1" {
		t.Errorf("n1 alone: %v, %v", list, err)
	}
	if _, err := f.describe("n9"); status.Code(err) != codes.NotFound {
		t.Errorf("unknown node: %v", err)
	}
	if _, err := f.describe("n3"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("node that is away: %v", err)
	}
	// Nothing of it stays a run of the node.
	f.agent.cut()
	f.agent.mustConnect()
	if got := f.agent.commands(); len(got) != 0 {
		t.Errorf("the agent was told %q", got)
	}
}

// TestDescribeMonitorsThroughABreak breaks the stream before the answer.
func TestDescribeMonitorsThroughABreak(t *testing.T) {
	f := setup(t, newAnalyser())
	came := f.hold(func(m *confinev1.ConnectResponse) bool { return m.GetDescribeMonitors() != nil })
	f.agent.mustConnect()
	done := make(chan error, 1)
	go func() {
		list, err := f.describe("n1")
		if err == nil && (list.GetNodes()[0].GetProblem() != "" || len(list.GetNodes()[0].GetMonitors()) != 1) {
			err = errors.New(list.String())
		}
		done <- err
	}()
	<-came
	f.agent.cut()
	f.agent.describes(&confinev1.MonitorStatus{Name: "ebpf", Works: true})
	f.agent.mustConnect()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDescribeMonitorsOfALostNode has the node go away for good.
func TestDescribeMonitorsOfALostNode(t *testing.T) {
	f := setup(t, newAnalyser())
	came := f.hold(func(m *confinev1.ConnectResponse) bool { return m.GetDescribeMonitors() != nil })
	f.agent.mustConnect()
	cut := make(chan struct{})
	go func() { defer close(cut); <-came; f.agent.cut() }()
	list, err := f.describe("n1")
	if err != nil || !strings.Contains(list.GetNodes()[0].GetProblem(), "node n1 was lost") {
		t.Errorf("%v, %v", list, err)
	}
	<-cut
}

// An agent that doesn't know the stress test is not left to be silent.
func TestStressOfAnOldAgent(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.hello.Commands = nil
	f.agent.mustConnect()
	stream, err := f.operator.Stress(t.Context(), &confinev1.StressRequest{Spec: &confinev1.StressSpec{Image: "app", Count: 1}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "too old") {
		t.Errorf("%v, want that the agent is too old", err)
	}
}
