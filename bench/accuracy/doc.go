// Accuracy compares what programs really do with what the static analysis says
// that they can do.
//
// Each program of programs.txtar (and of files named on the command line) runs
// under strace with a real load. The calls that each executed image made are
// held against the answer of pkg/analysis for that image and the objects that
// it mapped. The table has a row for each image; a call in the column "missing"
// is a defect of the analysis, and so is a value in "missing args": one that an
// argument was seen to have and that the conditions refuse ("narrowed" counts
// the calls with conditions, "args" the values that were compared).
//
// With -coverage it looks closer: the programs run under qemu-user (x86-64,
// and what they execute for i386 and arm64) with a plugin, which is compiled
// from plugin/recorder.c and records every block of instructions and every
// system call that is executed. Each block must lie in a function that the
// analysis counts as reached, each call must be made by a site that it knows,
// with a number and arguments that it knows of the site and that are allowed.
// The analysis is told only of the objects that it doesn't find by itself. A
// function that is executed and not reached is a defect even where no call is
// missing, unless every call is allowed anyway; it is listed with the lowest
// address that was executed in it.
//
// It installs the Debian packages that the programs need, unless -no-install
// is given; programs whose packages aren't there are listed as left out. It
// exits with 1 when something is missing.
//
//	go run ./bench/accuracy [-coverage] [-run REGEXP] [-o table|json] [-no-install] [FILE...]
package main
