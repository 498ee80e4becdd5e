// Package config reads what the user wrote: it finds castra.toml, decodes it
// strictly, with the bootstrap.toml beside each script, checks it, resolves its
// paths and expands replicas. All faults are reported at once, each with its
// line. A project that was read can be written as a snapshot and read back.
package config
