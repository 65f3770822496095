// Package layers checks which packages may import which. It holds tests only.
package layers
