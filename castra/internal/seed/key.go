package seed

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is one ed25519 key pair, as OpenSSH keeps it.
type Key struct {
	Private []byte // OpenSSH PEM, not encrypted
	Public  string // authorized_keys line, without a line end
}

// NewKey makes a key pair. The comment says whose key it is; it may not hold a
// line end.
func NewKey(comment string) (Key, error) {
	if strings.ContainsAny(comment, "\r\n") {
		return Key{}, fmt.Errorf("key comment %q: has a line end", comment)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make ed25519 key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return Key{}, fmt.Errorf("encode ed25519 key: %w", err)
	}
	line, err := authorizedLine(public)
	if err != nil {
		return Key{}, err
	}
	if comment != "" {
		line += " " + comment
	}
	return Key{Private: pem.EncodeToMemory(block), Public: line}, nil
}

// ParseKey reads a private key that NewKey made. The comment inside the PEM
// is not brought back.
func ParseKey(private []byte) (Key, error) {
	raw, err := ssh.ParseRawPrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("parse private key: %w", err)
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("parse private key: is %T, not ed25519", raw)
	}
	line, err := authorizedLine(key.Public().(ed25519.PublicKey))
	if err != nil {
		return Key{}, err
	}
	return Key{Private: private, Public: line}, nil
}

func authorizedLine(public ed25519.PublicKey) (string, error) {
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n"), nil
}
