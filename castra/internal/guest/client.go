package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
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
	// Listener, if not nil, is asked over each new connection before anything
	// is sent: nil says that the guest's QEMU takes the connections to Addr, or
	// that nobody can tell; an *ImpostorError is final.
	Listener func() error
}

// Client is one SSH connection to a guest. Its methods may be called at the
// same time.
type Client struct {
	// Progress, if not nil, hears during each Upload and Download how many
	// bytes of file content that transfer has moved so far: after every few
	// KiB, one call at a time, and none once the transfer has returned.
	Progress func(done int64)

	// Open tells that the guest let us in without asking for the key: whoever
	// reaches it may log in.
	Open bool

	addr      string
	conn      *ssh.Client
	keepalive time.Duration
	grace     time.Duration

	mu  sync.Mutex
	tar *bool // whether the guest has it; nil: not asked yet
}

// Dial connects and logs in once. It ends with ctx, and after a minute at
// most. Errors: *UnreachableError, *ImpostorError, *HostKeyError, *LoginError.
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

// handshake takes conn over, and closes it when it fails. An impostor is not
// even greeted.
func handshake(ctx context.Context, conn net.Conn, login Login, config *access) (*Client, error) {
	if login.Listener != nil {
		if err := login.Listener(); err != nil {
			conn.Close()
			if errors.As(err, new(*ImpostorError)) {
				return nil, err
			}
			return nil, &UnreachableError{Addr: login.Addr, Last: err}
		}
	}
	// ssh.ClientConfig.Timeout covers the TCP connection only.
	err := conn.SetDeadline(time.Now().Add(handshakeLimit))
	if err != nil {
		conn.Close()
		return nil, &UnreachableError{Addr: login.Addr, Last: err}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	config.asked.Store(false)
	sshConn, channels, requests, err := ssh.NewClientConn(conn, login.Addr, config.ClientConfig)
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
	return &Client{Open: !config.asked.Load(), addr: login.Addr, conn: client, keepalive: keepaliveInterval, grace: closeGrace}, nil
}

// access is a login as x/crypto takes it, for one handshake at a time.
type access struct {
	*ssh.ClientConfig
	// asked tells whether the guest has asked for the key: at first it is
	// offered nothing (RFC 4252, 5.2: the method "none").
	asked atomic.Bool
}

func (l Login) config() (*access, error) {
	signer, err := ssh.ParsePrivateKey(l.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("identity for %s: %w", l.Addr, err)
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.HostKey))
	if err != nil {
		return nil, fmt.Errorf("pinned host key for %s: %w", l.Addr, err)
	}
	config := &access{}
	config.ClientConfig = &ssh.ClientConfig{
		User: l.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			config.asked.Store(true)
			return []ssh.Signer{signer}, nil
		})},
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
