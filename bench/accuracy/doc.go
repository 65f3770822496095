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
// It installs the Debian packages that the programs need, unless -no-install
// is given; programs whose packages aren't there are listed as left out. It
// exits with 1 when a call is missing.
//
//	go run ./bench/accuracy [-run REGEXP] [-o table|json] [-no-install] [FILE...]
package main
