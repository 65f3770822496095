package facts

import "slices"

// maxScratch bounds the buffers that are kept for the next object, in bytes
// each: what large objects need isn't held on to.
const maxScratch = 8 << 20

// Scratch is memory that one object after another is built in. The zero value
// is empty. It isn't safe for concurrent use.
type Scratch struct {
	refs []ref
	bits [3]bitset
	data []byte
}

// Data returns n bytes to read an object into, whose content is undefined. They
// may be used again after Release.
func (s *Scratch) Data(n int) []byte {
	if n > cap(s.data) {
		return make([]byte, n)
	}
	data := s.data[:n]
	s.data = nil
	return data
}

// Release takes back what an object was built in. The object and its file must
// not be used any more; its facts stay good.
func (s *Scratch) Release(o *Object) {
	if n := cap(o.refs); n > cap(s.refs) && n*refSize <= maxScratch {
		s.refs = o.refs[:0]
	}
	for i, b := range []bitset{o.bound, o.targets, o.starts} {
		if n := cap(b); n > cap(s.bits[i]) && n*8 <= maxScratch {
			s.bits[i] = b[:0]
		}
	}
	if n := cap(o.File.Data); n > cap(s.data) && n <= maxScratch {
		s.data = o.File.Data[:0]
	}
	o.refs, o.bound, o.targets, o.starts, o.File.Data = nil, nil, nil, nil, nil
}

// bitset returns an empty one of n words.
func (s *Scratch) bitset(i, n int) bitset {
	b := s.bits[i]
	if n > cap(b) {
		return make(bitset, n)
	}
	s.bits[i] = nil
	b = b[:n]
	clear(b)
	return b
}

// references returns an empty list with room for n references.
func (s *Scratch) references(n int) []ref {
	list := slices.Grow(s.refs[:0], n)
	s.refs = nil
	return list
}
