package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	handshakeLimit    = time.Minute // for one handshake, where the context gives no less
	keepaliveInterval = 5 * time.Second
	keepaliveMisses   = 3
	closeGrace        = time.Second // for a cancelled command to end before its connection is closed
)

// Login is how to reach one guest.
type Login struct {
	Addr       string // host:port on this computer
	User       string
	PrivateKey []byte // OpenSSH PEM; the only key that is offered
	HostKey    string // authorized_keys line; the only host key that is accepted
}

// Client is one SSH connection to a guest. Its methods may be called at the
// same time.
type Client struct {
	// Progress, if not nil, hears during each Upload and Download how many
	// bytes of file content that transfer has moved so far: after every few
	// KiB, one call at a time, and none once the transfer has returned.
	Progress func(done int64)

	addr      string
	conn      *ssh.Client
	keepalive time.Duration
	grace     time.Duration

	mu  sync.Mutex
	tar *bool // whether the guest has it; nil: not asked yet
}

// Dial connects and logs in once. It ends with ctx, and after a minute at
// most. Errors: *UnreachableError, *HostKeyError, *LoginError.
func Dial(ctx context.Context, login Login) (*Client, error) {
	config, err := login.config()
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: handshakeLimit}).DialContext(ctx, "tcp", login.Addr)
	if err != nil {
		return nil, &UnreachableError{Addr: login.Addr, Last: err}
	}
	return handshake(ctx, conn, login, config)
}

// Close ends the connection and the commands that run over it.
func (c *Client) Close() error {
	err := c.conn.Close()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close connection to %s: %w", c.addr, err)
	}
	return nil
}

// handshake takes conn over, and closes it when it fails.
func handshake(ctx context.Context, conn net.Conn, login Login, config *ssh.ClientConfig) (*Client, error) {
	// ssh.ClientConfig.Timeout covers the TCP connection only.
	err := conn.SetDeadline(time.Now().Add(handshakeLimit))
	if err != nil {
		conn.Close()
		return nil, &UnreachableError{Addr: login.Addr, Last: err}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	sshConn, channels, requests, err := ssh.NewClientConn(conn, login.Addr, config)
	if !stop() && err == nil {
		sshConn.Close()
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, login.classify(err)
	}
	client := ssh.NewClient(sshConn, channels, requests)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		client.Close()
		return nil, &UnreachableError{Addr: login.Addr, Last: err}
	}
	return &Client{addr: login.Addr, conn: client, keepalive: keepaliveInterval, grace: closeGrace}, nil
}

func (l Login) config() (*ssh.ClientConfig, error) {
	signer, err := ssh.ParsePrivateKey(l.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("identity for %s: %w", l.Addr, err)
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.HostKey))
	if err != nil {
		return nil, fmt.Errorf("pinned host key for %s: %w", l.Addr, err)
	}
	config := &ssh.ClientConfig{
		User:              l.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: []string{pinned.Type()},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if bytes.Equal(key.Marshal(), pinned.Marshal()) {
				return nil
			}
			return &HostKeyError{Addr: l.Addr, Got: ssh.FingerprintSHA256(key), Want: ssh.FingerprintSHA256(pinned)}
		},
	}
	if pinned.Type() == ssh.KeyAlgoRSA {
		config.HostKeyAlgorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	config.KeyExchanges = keyExchanges
	config.Ciphers = ciphers
	return config, nil
}

// classify gives a failed handshake its type.
func (l Login) classify(err error) error {
	var wrongKey *HostKeyError
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case errors.As(err, &wrongKey):
		return wrongKey
	case errors.As(err, &negotiation) && strings.Contains(err.Error(), "for host key"):
		pinned, _, _, _, parseErr := ssh.ParseAuthorizedKey([]byte(l.HostKey))
		if parseErr != nil {
			return parseErr
		}
		return &HostKeyError{Addr: l.Addr, Want: ssh.FingerprintSHA256(pinned)}
	case strings.Contains(err.Error(), "unable to authenticate"):
		// x/crypto has no type for it; a test holds the text to its word.
		return &LoginError{Addr: l.Addr, User: l.User, Err: errors.New("the guest refused the key")}
	}
	return &UnreachableError{Addr: l.Addr, Last: err}
}
