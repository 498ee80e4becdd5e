// Package image knows base images: what a disk file is, whether it may be
// booted, and how to come by the ones that have a name.
package image
