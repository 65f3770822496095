// Package system tests the finished programs of folder bin together, as users
// run them: a containerd of their own, real images, the real server, agent and
// command line. It holds tests only.
package system
