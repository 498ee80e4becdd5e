package qemutest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func (m *machine) takePidfile() error {
	if m.pidfile == "" {
		return nil
	}
	f, err := os.OpenFile(m.pidfile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create PID file: Could not create '%s': %s", m.pidfile, reason(err))
	}
	if err := lockWhole(f); err != nil {
		m.pidfile = "" // not ours to remove
		return errors.New("cannot create PID file: Cannot lock pid file: Resource temporarily unavailable")
	}
	held = append(held, f)
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	return err
}

func (m *machine) removePidfile() {
	if m.pidfile != "" {
		_ = os.Remove(m.pidfile)
	}
}

// cleanup removes what QEMU removes when it ends in order.
func (m *machine) cleanup() {
	m.removePidfile()
	if m.options.monitor != "" {
		_ = os.Remove(m.options.monitor)
	}
	m.network.close()
}

func (m *machine) writeSerial(text string) error {
	if m.serial == "" {
		return nil
	}
	if strings.HasPrefix(m.serial, fdSet) {
		_, _ = io.WriteString(m.passed, text) // QEMU drops what nobody takes
		return nil
	}
	flag := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !m.serialAppend {
		flag |= os.O_TRUNC
		m.serialAppend = true
	}
	f, err := os.OpenFile(m.serial, flag, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.WriteString(f, text)
	return err
}

// fdSet and the number of a set is a path that stands for a descriptor which was passed.
const fdSet = "/dev/fdset/"

// addDescriptor takes -add-fd.
func (o *options) addDescriptor(fields map[string]string) error {
	fd, err := strconv.Atoi(fields["fd"])
	if err != nil {
		return errors.New("Parameter 'fd' expects a number") //nolint:staticcheck // QEMU's words
	}
	if fd <= 2 {
		return errors.New("fd cannot be a standard I/O stream")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return errors.New("fd is not valid or already in use")
	}
	o.sets[fields["set"]] = fd
	return nil
}

// openSerial opens the serial port's descriptor, where it has one.
func (o *options) openSerial() error {
	set, ok := strings.CutPrefix(o.serial, fdSet)
	if !ok {
		return nil
	}
	fault := func(why error) error {
		return fmt.Errorf("-chardev file,id=%s,append=on,path=%s: Could not open '%s': %s", o.serialID, o.serial, o.serial, reason(why))
	}
	fd, ok := o.sets[set]
	if !ok {
		return fault(unix.ENOENT)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fault(err)
	}
	if flags&unix.O_ACCMODE != unix.O_WRONLY {
		return fault(unix.EACCES)
	}
	o.passed = os.NewFile(uintptr(fd), o.serial)
	return nil
}

func (m *machine) guestPath() string {
	return filepath.Join(m.dir, guestDirs, m.name+"-"+strconv.Itoa(os.Getpid()))
}

// guestDir is the home of the guest's commands.
func (m *machine) guestDir() (string, error) {
	dir := m.guestPath()
	return dir, os.MkdirAll(dir, 0o700)
}

func openOverlay(n node) error {
	f, _, err := n.open()
	if err != nil {
		return err
	}
	if err := openBacking(f); err != nil {
		return n.fault(err)
	}
	if err := lockImage(f); err != nil {
		return n.fault(fmt.Errorf("%w\nIs another process using the image [%s]?", err, n.file))
	}
	return nil
}

// openBacking keeps the backing files of a qcow2 open, marked as read. Each is
// of the format that the image above says.
func openBacking(f *os.File) error {
	for {
		name, format, err := backingOf(f)
		if err != nil || name == "" {
			return err
		}
		if f, err = os.Open(name); err != nil {
			return fmt.Errorf("Could not open backing file: Could not open '%s': %s", name, reason(err)) //nolint:staticcheck // QEMU's words
		}
		held = append(held, f)
		if err := shareImage(f); err != nil {
			return err
		}
		if format == "raw" {
			return nil
		}
		if _, err := readHeader(f); err != nil {
			return fmt.Errorf("Could not open backing file: %w", errNoQcow2) //nolint:staticcheck // QEMU's words
		}
	}
}

// listenUnix binds as QEMU does: what stood at path is gone, and one client
// at most waits while another is served.
func listenUnix(path string) (*net.UnixListener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("UNIX socket path '%s' is too long\nPath must be less than 108 bytes", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("Failed to unlink socket %s: %s", path, reason(err)) //nolint:staticcheck // QEMU's words
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	var backlog error
	if err := raw.Control(func(fd uintptr) { backlog = unix.Listen(int(fd), 1) }); err != nil {
		return nil, err
	}
	return ln, backlog
}

// reason is strerror: the bare cause of a file error, with a capital.
func reason(err error) string {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return err.Error()
	}
	text := []byte(number.Error())
	if len(text) > 0 && text[0] >= 'a' && text[0] <= 'z' {
		text[0] -= 'a' - 'A'
	}
	return string(text)
}
