// Package fetch downloads one image over HTTPS into a partial file and returns only when the bytes there are those that a digest
// names. Get resumes what an earlier run left, starts over where the server cannot resume, and gives up on a server that is
// silent or absurdly slow but never on one that is merely slow.
//
// Nothing that a server says is believed further than it can be checked: lengths, ranges and validators decide only whether bytes
// are asked for again, and the digest decides whether they are taken. What leaves this package for people to read has no user
// names, passwords or query strings of URLs in it.
//
// The caller holds the lock on Request.Part and renames it afterwards.
package fetch
