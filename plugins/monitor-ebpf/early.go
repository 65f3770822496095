package main

import confinev1 "github.com/confinehq/confine/proto/confine/v1"

// maxEarly bounds the mappings that wait for the name of their process.
const maxEarly = 1024

// early holds mappings, by image, that were told of before the execution which
// names their process. Of two processors that execute the same program at once
// only one tells of it; the other may go on and map the first library before
// that record is written.
type early struct {
	send    func(*confinev1.Mapping)
	byImage map[uint64][]*confinev1.Mapping
	count   int
}

func newEarly(send func(*confinev1.Mapping)) *early {
	return &early{send: send, byImage: make(map[uint64][]*confinev1.Mapping)}
}

// hold keeps a mapping until its image is named.
func (e *early) hold(image uint64, m *confinev1.Mapping) {
	if e.count >= maxEarly {
		e.giveUp()
	}
	e.byImage[image] = append(e.byImage[image], m)
	e.count++
}

// named sends what waited for the name of an image.
func (e *early) named(image uint64, path string) {
	held := e.byImage[image]
	if len(held) == 0 {
		return
	}
	for _, m := range held {
		m.Process = path
		e.send(m)
	}
	e.count -= len(held)
	delete(e.byImage, image)
}

// giveUp sends all without a process: the record that names it was lost, and
// counted.
func (e *early) giveUp() {
	for _, held := range e.byImage {
		for _, m := range held {
			e.send(m)
		}
	}
	clear(e.byImage)
	e.count = 0
}
