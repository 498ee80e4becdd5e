//go:build !linux

package host

import (
	"context"
	"errors"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// BootID names this boot of the computer; "" where unknown.
func BootID() string {
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return strconv.FormatInt(tv.Sec, 10)
}

// CPU names the model of this computer's CPU; "" where unknown.
func CPU() string {
	brand, _ := unix.Sysctl("machdep.cpu.brand_string")
	return brand
}

// TotalMemory is not known here.
func TotalMemory() (uint64, error) { return 0, errors.ErrUnsupported }

// AvailableMemory is not known here: callers skip the check.
func AvailableMemory() (uint64, error) { return 0, errors.ErrUnsupported }

// WaitExit returns when the process has ended, or with ctx's error.
func (p *Process) WaitExit(ctx context.Context) error { return p.pollExit(ctx) }

func ended(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// PortOwner is not known here.
func PortOwner(string, string, int) Owner { return Owner{} }

// Bindable tries whether a port can be listened on now. Meanwhile others cannot.
func Bindable(ctx context.Context, protocol, ip string, port int) error {
	return tryListen(ctx, protocol, ip, port)
}

// Serves is not known here.
func Serves(int, netip.AddrPort) (bool, error) { return false, errors.ErrUnsupported }

// Confined is not known here.
func Confined(int) (Confinement, error) { return Confinement{}, errors.ErrUnsupported }

// ListensIPv6 is not known here.
func ListensIPv6(int) bool { return false }

// RunsIn is not known here.
func RunsIn(int, string) (in, known bool) { return false, false }

// WorkingDirs is not known here.
func WorkingDirs(string) map[int]string { return nil }

// MountPoints is not known here.
func MountPoints() []string { return nil }
