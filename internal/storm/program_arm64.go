package storm

import _ "embed"

//go:embed storm_arm64
var program []byte
