package objects

import (
	"container/list"
	"sync"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// Memory keeps facts as they are after decoding, for analyses to come: those
// that were used last, up to a number of bytes. It is safe for concurrent use.
// Facts in it are shared and never changed.
type Memory struct {
	limit int64

	mu    sync.Mutex
	bytes int64
	known map[string]*list.Element // key: SHA-256 of the object; values: *known
	order list.List                // used last first
}

// known is what is known of one content.
type known struct {
	sum    string
	facts  *facts.Facts
	header facts.Header
	bytes  int64 // guarded by Memory.mu

	mu sync.Mutex // guards what follows
	// answers and names keep what was asked; key: as in the cache, without the
	// object.
	answers map[string]map[uint32][]facts.Site
	names   map[string]map[uint32]Names
	unsaved map[string]bool // those of them that the cache lacks
}

// NewMemory returns an empty memory for about limit bytes.
func NewMemory(limit int64) *Memory {
	return &Memory{limit: limit, known: map[string]*list.Element{}}
}

// get returns what is known of a content, nil when nothing is.
func (m *Memory) get(sum string) *known {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[sum]
	if e == nil {
		return nil
	}
	m.order.MoveToFront(e)
	return e.Value.(*known)
}

// put keeps what is known of a content, unless something is kept already or it
// would need half of the memory.
func (m *Memory) put(k *known) {
	if m == nil {
		return
	}
	bytes := k.facts.Footprint()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known[k.sum] != nil || bytes > m.limit/2 {
		return
	}
	k.bytes = bytes
	m.known[k.sum] = m.order.PushFront(k)
	m.add(bytes)
}

// answered counts what an answer needs, if the memory keeps k.
func (m *Memory) answered(k *known, bytes int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[k.sum]; e != nil && e.Value == k {
		k.bytes += bytes
		m.add(bytes)
	}
}

// add counts bytes, and forgets what wasn't used for the longest time.
func (m *Memory) add(bytes int64) {
	m.bytes += bytes
	for m.bytes > m.limit && m.order.Len() > 0 {
		k := m.order.Remove(m.order.Back()).(*known)
		delete(m.known, k.sum)
		m.bytes -= k.bytes
	}
}

// answer returns what was asked before, under its name, and whether that must
// still be saved: it says so once.
func (k *known) answer(name string) (m map[uint32][]facts.Site, ok, unsaved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok = k.answers[name]
	return m, ok, k.saving(name)
}

func (k *known) keepAnswer(name string, m map[uint32][]facts.Site, unsaved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers == nil {
		k.answers = map[string]map[uint32][]facts.Site{}
	}
	k.answers[name] = m
	k.saveLater(name, unsaved)
}

func (k *known) namesOf(name string) (m map[uint32]Names, ok, unsaved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok = k.names[name]
	return m, ok, k.saving(name)
}

func (k *known) keepNames(name string, m map[uint32]Names, unsaved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.names == nil {
		k.names = map[string]map[uint32]Names{}
	}
	k.names[name] = m
	k.saveLater(name, unsaved)
}

// saveLater notes that something is worth saving when somebody asks for it.
func (k *known) saveLater(name string, unsaved bool) {
	if !unsaved {
		return
	}
	if k.unsaved == nil {
		k.unsaved = map[string]bool{}
	}
	k.unsaved[name] = true
}

func (k *known) saving(name string) bool {
	unsaved := k.unsaved[name]
	delete(k.unsaved, name)
	return unsaved
}

// sizeOf is about what sites need, in bytes.
func sizeOf(m map[uint32][]facts.Site) int64 {
	n := int64(100)
	for _, list := range m {
		n += 64
		for i := range list {
			n += 160 + int64(len(list[i].Nrs)*4+len(list[i].Params)*2+len(list[i].Unresolved)+len(list[i].Vars)*4+len(list[i].Args)*64)
		}
	}
	return n
}

// sizeOfNames is about what names need, in bytes.
func sizeOfNames(m map[uint32]Names) int64 {
	n := int64(100)
	for _, v := range m {
		n += 96
		for _, s := range v.Known {
			n += 16 + int64(len(s))
		}
	}
	return n
}
