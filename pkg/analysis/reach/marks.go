package reach

// marks tell most names by their hashes from a few that matter: there is a bit
// for the last bits of the hash of each of these.
type marks [1 << markBits / 64]uint64

const markBits = 12

func (m *marks) add(hash uint32) { m[hash%(1<<markBits)/64] |= 1 << (hash % 64) }

// has reports whether a name with a hash may be one of those.
func (m *marks) has(hash uint32) bool { return m[hash%(1<<markBits)/64]&(1<<(hash%64)) != 0 }
