package agent

import (
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func TestChooseCaptured(t *testing.T) {
	host := &confinev1.CapturedContainer{Id: "host", Events: 9}
	web := &confinev1.CapturedContainer{Id: "0123456789ab", Name: "web", Image: "nginx:1.25"}
	twin := &confinev1.CapturedContainer{Id: "0123ffffffff", Name: "web-2", Image: "nginx:1.25"}
	one := []*confinev1.CapturedContainer{host, web}
	two := []*confinev1.CapturedContainer{twin, host, web}
	for _, c := range []struct {
		all          []*confinev1.CapturedContainer
		wanted, want string // id, or a part of the error
	}{
		{one, "", web.Id}, {one, "host", "host"}, {one, "web", web.Id}, {one, "nginx:1.25", web.Id}, {one, "0123", web.Id},
		{one, web.Id + strings.Repeat("0", 52), web.Id}, {one, "012", "no container"}, {one, "ho", "no container"},
		{one, "nginx", "it holds: 0123456789ab web nginx:1.25, host"},
		{two, "", "2 containers: 0123456789ab web nginx:1.25, 0123ffffffff web-2 nginx:1.25; choose one"},
		{two, "0123", "give the id"}, {two, "nginx:1.25", "give the id"}, {two, "web", web.Id}, {two, "web-2", twin.Id}, {two, twin.Id, twin.Id},
		{[]*confinev1.CapturedContainer{host}, "", "host"}, {nil, "", "holds no event"},
		{[]*confinev1.CapturedContainer{{Id: ""}}, "", "holds no event"},
	} {
		got, err := chooseCaptured(c.all, c.wanted)
		if got.GetId() != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d containers, %q: %v, %v, want %s", len(c.all), c.wanted, got, err, c.want)
		}
	}
}
