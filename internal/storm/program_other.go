//go:build !amd64 && !arm64

package storm

// program is empty where no storm is compiled for this architecture.
var program []byte
