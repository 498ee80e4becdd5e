// Package config reads what the user wrote: it finds castra.toml, decodes it
// strictly, checks it, resolves its paths and expands replicas. All faults of
// a file are reported at once, each with its line.
package config
