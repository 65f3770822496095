// Package seccomp is the model of a profile: which system calls are allowed,
// with which arguments, for which architectures, and what a refused call gets.
//
// The written form is the linux.seccomp of an OCI configuration in its flat
// shape, which Docker, Podman, containerd and Kubernetes read as it is:
// nothing in it is conditional on an architecture, a capability or a kernel.
package seccomp
