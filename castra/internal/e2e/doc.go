// Package e2e holds tests alone: real QEMU, real guests, through a compiled
// magefile of a project outside this repository, as users run it.
package e2e
