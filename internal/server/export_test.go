package server

// MethodRules lists the methods that have a rule.
func MethodRules() map[string]bool {
	out := map[string]bool{}
	for m := range methodAccess() {
		out[m] = true
	}
	return out
}
