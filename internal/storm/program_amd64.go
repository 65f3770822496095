package storm

import _ "embed"

//go:embed storm_amd64
var program []byte
