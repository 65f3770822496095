package main_test

import (
	"testing"

	"github.com/confinehq/confine/pkg/monitor/monitortest"
)

func TestConformance(t *testing.T) {
	needKernel(t)
	monitortest.Run(t, monitortest.Config{Path: plugin})
}
