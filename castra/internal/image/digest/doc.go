// Package digest names the contents of a file by a SHA-2 digest: it reads the ways in which people and tools write one, takes
// the digest of a file at the speed of the disk or the processor, and says what differs where two are not the same.
//
// SHA-512 and SHA-256 are known; weaker or rarer ones are refused by name. A text that is no digest is a *FormatError and
// never a mismatch, so that an empty or damaged sidecar cannot be taken for a verdict on the file.
package digest
