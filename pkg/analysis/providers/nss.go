package providers

import (
	"context"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const nsswitch = "/etc/nsswitch.conf"

// nss lists the name services, for whose names glibc computes
// "libnss_NAME.so.2" (nsswitch.conf(5)).
func (r *Root) nss(ctx context.Context) []reach.Service {
	names := r.once(nsswitch, func() []string {
		var names []string
		for _, line := range lines(r.files.Read(ctx, nsswitch)) {
			_, list, _ := strings.Cut(line, ":")
			for _, s := range strings.Fields(list) {
				if !strings.HasPrefix(s, "[") && !strings.Contains(s, "/") && !strings.HasSuffix(s, "]") {
					names = append(names, s)
				}
			}
		}
		if len(names) == 0 {
			names = []string{"files", "dns"}
		}
		return names
	})
	var out []reach.Service
	for _, n := range names {
		out = append(out, reach.Service{Library: "libnss_" + n + ".so.2", Prefix: "_nss_" + n + "_", Config: nsswitch})
	}
	return out
}
