package monitor

import (
	"os"
	"runtime"
	"slices"
	"testing"
)

// A host gives what it has itself, and says so.
func TestPermitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("capabilities are root's")
	}
	names := []string{"CAP_BPF", "CAP_PERFMON"}
	numbers, err := capabilityNumbers(names)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its privileges
		defer close(got)
		for range 2 {
			given, err := permitted(names, numbers)
			if err != nil {
				t.Error(err)
			}
			got <- given
			if err := setCapabilities(numbers[:1]); err != nil {
				t.Error(err)
			}
		}
	}()
	if all := <-got; !slices.Equal(all, names) {
		t.Errorf("permitted %v, want %v", all, names)
	}
	if one := <-got; !slices.Equal(one, names[:1]) {
		t.Errorf("permitted %v after the others were given up, want %v", one, names[:1])
	}
	for range got {
		t.Error("more was said")
	}
}
