// Package explain writes for people and programs why system calls are allowed:
// as text, as JSON and as a graph in the language of Graphviz. It takes what a
// server keeps and what an analysis without a server finds alike.
package explain

// Document is the answer about one call, and its JSON form. No list is null.
type Document struct {
	// Subject is the image or the programs that it is about, Result the id of
	// the stored result, "" when there is none.
	Subject  string `json:"subject"`
	Result   string `json:"result"`
	Platform string `json:"platform"`
	Call     string `json:"call"`
	Nr       int    `json:"nr"`
	Allowed  bool   `json:"allowed"`
	// Seen is null when nothing was run.
	Seen *bool `json:"seen"`
	// Conditions are what arguments must be, in words.
	Conditions []string `json:"conditions"`
	// Reasons are the shortest chains, one for each of the first programs, and
	// what isn't a chain.
	Reasons []Reason `json:"reasons"`
	// Chains are the places of the call that were asked for, each with its
	// shortest chain; Left counts the others.
	Chains []Chain `json:"chains"`
	Left   int     `json:"left"`
	// Absent are places of a call that isn't allowed: code that nothing
	// reaches.
	Absent []Absent `json:"absent"`
	// Unknown is set when nothing is known of places, because the result is
	// older than explanations are kept.
	Unknown bool `json:"unknown,omitempty"`
}

// Reason is one reason why a call is allowed.
type Reason struct {
	Kind   string  `json:"kind"`
	Detail string  `json:"detail"`
	Chain  []Frame `json:"chain"`
	Site   Site    `json:"site"`
}

// Chain is the shortest way to one place that decides the call's number.
type Chain struct {
	// Object and Address say where that place is.
	Object  string `json:"object"`
	Address uint64 `json:"address"`
	// Compat is set for the 32-bit gate.
	Compat bool `json:"compat,omitempty"`
	// Detail says why the number isn't known, "" when it is.
	Detail string  `json:"detail,omitempty"`
	Frames []Frame `json:"chain"`
	Site   Site    `json:"site"`
}

// Site is the instruction that enters the kernel.
type Site struct {
	Object  string `json:"object"`
	Address uint64 `json:"address"`
	// Wrappers is the number of functions at the end of the chain that only
	// pass the number on.
	Wrappers int `json:"wrappers"`
}

// Frame is one step of a chain.
type Frame struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Symbol string `json:"symbol"`
	// Demangled is the symbol as its language writes it, "" when that is the
	// same.
	Demangled string `json:"demangled,omitempty"`
	Address   uint64 `json:"address"`
	// Size in bytes.
	Size uint64 `json:"size"`
	Edge string `json:"edge"`
	// At is the address, in the frame before, of the instruction or the
	// pointer that leads here; 0 when it isn't known.
	At uint64 `json:"at,omitempty"`
}

// Absent is a place that no chain leads to.
type Absent struct {
	Object   string   `json:"object"`
	Symbol   string   `json:"symbol"`
	Function uint64   `json:"function"`
	Address  uint64   `json:"address"`
	Exports  []string `json:"exports"`
	Users    []string `json:"users"`
	// More counts the places that are left out behind this one.
	More int `json:"more,omitempty"`
}
