// Package analysis finds, by reading machine code, every system call that a
// program can ever make.
package analysis
