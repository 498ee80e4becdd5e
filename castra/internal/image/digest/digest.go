package digest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
)

// The algorithms that are known.
const (
	SHA512 = "sha512"
	SHA256 = "sha256"
)

// Digest is what a file's contents are known by. The zero value stands for
// "not known".
type Digest struct {
	Algorithm string // SHA512 or SHA256
	Hex       string // lower case
}

// String is "sha512:HEX", or "" of the zero value.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Algorithm + ":" + d.Hex
}

// IsZero tells that there is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// New starts a digest of d's algorithm; nil for an algorithm that Parse does
// not give.
func (d Digest) New() hash.Hash {
	switch d.Algorithm {
	case SHA512:
		return sha512.New()
	case SHA256:
		return sha256.New()
	}
	return nil
}

// Of is the digest of what h, which came from New, has been fed.
func (d Digest) Of(h hash.Hash) Digest {
	return Digest{Algorithm: d.Algorithm, Hex: hex.EncodeToString(h.Sum(nil))}
}

// Check is nil where got is d, and a *MismatchError about name otherwise.
func (d Digest) Check(name string, got Digest) error {
	if d == got && !d.IsZero() {
		return nil
	}
	return &MismatchError{Name: name, Got: got, Want: d}
}

// MismatchError says: the contents are not those that the digest names.
type MismatchError struct {
	Name      string // the file or URL
	Got, Want Digest
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: wrong contents: its digest is %s, expected %s", e.Name, e.Got, e.Want)
}

// Hint says what to do next.
func (e *MismatchError) Hint() string {
	return "fetch it again; where it stays so, the file was changed or damaged at its source: compare the digest with the one its makers publish"
}
