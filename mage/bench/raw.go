package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// raw is the same guest run by QEMU's own command line and nothing else: what
// a person could type.
type raw struct {
	dir     string // where its overlay and sockets are
	command []string
	base    string
	port    int
	login   *ssh.ClientConfig
}

const (
	sshPoll  = 20 * time.Millisecond
	bootWait = 3 * time.Minute
)

// prepareRaw boots the VM once through castra and takes over its command
// line, a copy of its seed and the key.
func (p *project) prepareRaw(ctx context.Context) (*raw, error) {
	r := &raw{dir: filepath.Join(p.tmp, "raw")}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	if _, _, err := p.mage(ctx, "up"); err != nil {
		return nil, err
	}
	text, err := output(ctx, p.dir, p.environment(), p.binary, "plan", "-json")
	if err != nil {
		return nil, err
	}
	var plan struct {
		Root string
		VMs  []struct {
			BaseImage string `json:"base_image"`
			Overlay   string
			Seed      string
			Command   []string
		}
	}
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		return nil, err
	}
	vm := plan.VMs[0]
	seed := filepath.Join(r.dir, "seed.iso")
	data, err := os.ReadFile(vm.Seed)
	if err == nil {
		err = os.WriteFile(seed, data, 0o600)
	}
	if err == nil {
		err = r.takeLogin(filepath.Join(plan.Root, "metadata", "session.json"))
	}
	if err != nil {
		return nil, err
	}
	if r.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	r.base = vm.BaseImage
	rename := strings.NewReplacer(vm.Overlay, filepath.Join(r.dir, "overlay.qcow2"), vm.Seed, seed, plan.Root, r.dir,
		filepath.Join(plan.Root, "logs"), r.dir, "tcp:127.0.0.1:0-:22", fmt.Sprintf("tcp:127.0.0.1:%d-:22", r.port))
	for _, arg := range vm.Command {
		r.command = append(r.command, rename.Replace(arg))
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "logs"), 0o700); err != nil {
		return nil, err
	}
	_, _, err = p.mage(ctx, "down")
	return r, err
}

func (r *raw) takeLogin(session string) error {
	b, err := os.ReadFile(session)
	if err != nil {
		return err
	}
	var s struct {
		VMs map[string]struct {
			SSH struct {
				User, Identity string
				HostKey        string `json:"host_key"`
			}
		}
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	for _, vm := range s.VMs {
		pem, err := os.ReadFile(vm.SSH.Identity)
		if err != nil {
			return err
		}
		signer, err := ssh.ParsePrivateKey(pem)
		if err != nil {
			return err
		}
		hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(vm.SSH.HostKey))
		if err != nil {
			return err
		}
		r.login = &ssh.ClientConfig{
			User: vm.SSH.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback: ssh.FixedHostKey(hostKey), HostKeyAlgorithms: []string{hostKey.Type()},
		}
		return nil
	}
	return errors.New(session + ": no VM on record")
}

// round boots the guest from a fresh overlay to an executed command, presses
// its power button, and tells how long both took.
func (r *raw) round(ctx context.Context) (up, down time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	overlay := filepath.Join(r.dir, "overlay.qcow2")
	if err := os.Remove(overlay); err != nil && !os.IsNotExist(err) {
		return 0, 0, err
	}
	began := time.Now()
	if _, err := output(ctx, r.dir, nil, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", r.base, overlay); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, r.command[0], r.command[1:]...)
	cmd.Dir = r.dir
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := r.untilCommand(ctx, ended); err != nil {
		return 0, 0, err
	}
	up = time.Since(began)
	began = time.Now()
	if err := powerdown(ctx, r.monitor()); err != nil {
		return 0, 0, err
	}
	select {
	case <-ended: //nolint:errcheck // any end will do
		return up, time.Since(began), nil
	case <-ctx.Done():
		return 0, 0, errors.New("the guest did not power off")
	}
}

func (r *raw) monitor() string {
	for _, arg := range r.command {
		if _, path, ok := strings.Cut(arg, "socket,id=monitor0,server=on,wait=off,path="); ok {
			return filepath.Join(r.dir, path)
		}
	}
	return ""
}

// untilCommand tries until the guest has run a command.
func (r *raw) untilCommand(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(sshPoll)
	defer tick.Stop()
	var last error
	for {
		if last = r.try(ctx); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no SSH: %w", last)
		case err := <-ended:
			return fmt.Errorf("QEMU ended: %w", err)
		case <-tick.C:
		}
	}
}

func (r *raw) try(ctx context.Context) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	// The banner tells whether anybody is there: QEMU itself accepts at once.
	if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	peek := bufio.NewReader(conn)
	if _, err := peek.Peek(4); err != nil {
		return err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	c, chans, reqs, err := ssh.NewClientConn(buffered{conn, peek}, addr, r.login)
	if err != nil {
		return err
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	return session.Run("true")
}

// buffered gives back what was peeked at.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// powerdown presses the guest's power button over QMP.
func powerdown(ctx context.Context, path string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for _, command := range []string{`{"execute":"qmp_capabilities"}`, `{"execute":"system_powerdown"}`} {
		if !lines.Scan() {
			return errors.New("the monitor ended")
		}
		if _, err := fmt.Fprintln(conn, command); err != nil {
			return err
		}
	}
	if !lines.Scan() {
		return errors.New("the monitor ended")
	}
	return nil
}

// freePort is a port that was free a moment ago.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
