package reach

import (
	"math/bits"
	"math/rand/v2"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// words are strings, each of them once.
type words struct {
	odd   uint32 // spreads hashes over the slots, by chance
	shift uint
	slots []uint32 // index of a word plus 1; 0 for an empty one
	list  []word
	more  map[string]uint32 // those whose hashes too many others share
}

// word is a string that is a text of the trail, or may become one.
type word struct {
	facts.Symbol
	text   uint32 // index of the text plus 1; 0 when it is none
	wanted uint32 // the exports that count when it is reached; a list of graph.wanted
}

// maxProbes bounds the slots that are looked at for one word.
const maxProbes = 32

// find returns a word that was added, nil for any other. It is good until the
// next one is added.
func (w *words) find(s facts.Symbol) *word {
	if len(w.slots) == 0 {
		return nil
	}
	i, _ := w.look(s)
	if i == 0 {
		return nil
	}
	return &w.list[i-1]
}

// look returns the index of a word plus 1, or 0 and a slot for it; no slot when
// it belongs to more.
func (w *words) look(s facts.Symbol) (index uint32, slot *uint32) {
	at := (s.Hash() * w.odd) >> w.shift
	for range maxProbes {
		slot := &w.slots[at]
		if *slot == 0 {
			return 0, slot
		}
		if x := &w.list[*slot-1]; x.Hash() == s.Hash() && x.Name == s.Name {
			return *slot, nil
		}
		at = (at + 1) & uint32(len(w.slots)-1)
	}
	return w.more[s.Name], nil
}

// word returns a word, which it adds when it is new. It is good until the next
// one is added.
func (w *words) word(s facts.Symbol) *word {
	if 2*len(w.list) >= len(w.slots) {
		w.grow()
	}
	i, slot := w.look(s)
	if i == 0 {
		w.list = append(w.list, word{Symbol: s})
		w.put(uint32(len(w.list)), slot)
		return &w.list[len(w.list)-1]
	}
	return &w.list[i-1]
}

func (w *words) put(index uint32, slot *uint32) {
	if slot != nil {
		*slot = index
		return
	}
	if w.more == nil {
		w.more = map[string]uint32{}
	}
	w.more[w.list[index-1].Name] = index
}

func (w *words) grow() { w.resize(max(1<<10, 2*len(w.slots))) }

// reserve makes room for a number of words, when there are none yet.
func (w *words) reserve(n int) {
	w.list = make([]word, 0, n)
	w.resize(1 << bits.Len(uint(n)))
}

// resize makes a number of slots, a power of 2.
func (w *words) resize(size int) {
	w.odd, w.shift = rand.Uint32()|1, 33-uint(bits.Len(uint(size)))
	w.slots, w.more = make([]uint32, size), nil
	for i := range w.list {
		_, slot := w.look(w.list[i].Symbol)
		w.put(uint32(i+1), slot)
	}
}
