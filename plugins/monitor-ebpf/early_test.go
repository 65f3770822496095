package main

import (
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Mappings wait for the name of their process, no other's and not for ever.
func TestEarlyMappings(t *testing.T) {
	var sent []*confinev1.Mapping
	e := newEarly(func(m *confinev1.Mapping) { sent = append(sent, m) })
	e.hold(1, &confinev1.Mapping{Path: "/a"})
	e.hold(1, &confinev1.Mapping{Path: "/b"})
	e.hold(2, &confinev1.Mapping{Path: "/c"})
	e.named(3, "/other")
	if len(sent) > 0 || e.count != 3 {
		t.Fatalf("sent %v before there was a name, %d are held", sent, e.count)
	}
	e.named(1, "/program")
	if len(sent) != 2 || sent[0].GetPath() != "/a" || sent[1].GetPath() != "/b" || sent[1].GetProcess() != "/program" {
		t.Errorf("sent %v, want those of the named one in order", sent)
	}
	e.giveUp()
	if len(sent) != 3 || sent[2].GetPath() != "/c" || sent[2].GetProcess() != "" || e.count != 0 {
		t.Errorf("sent %v, want the last one without a process; %d are held", sent, e.count)
	}
	for range maxEarly + 1 {
		e.hold(4, &confinev1.Mapping{})
	}
	if len(sent) != 3+maxEarly || e.count != 1 {
		t.Errorf("%d sent and %d held, want all but the last one sent", len(sent), e.count)
	}
}
