package main

// loss says why the kernel's side lost something; enum loss in event.h.
type loss uint32

const (
	lostRing loss = iota
	lostState
	lostImages
	lostNumber
	lostRanges
	lostPlaces
	lossCount
)

func (l loss) String() string {
	switch l {
	case lostRing:
		return "the ring buffer was full"
	case lostState:
		return "no memory for the state of a task"
	case lostImages:
		return "too many different programs ran"
	case lostNumber:
		return "a call number outside the table"
	case lostRanges:
		return "too many mappings were made executable at once"
	default:
		return "too many different refused calls"
	}
}
