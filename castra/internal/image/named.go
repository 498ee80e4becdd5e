package image

import (
	"context"
	"fmt"

	"castra.example/castra/castra/internal/image/small"
)

// Base is a disk to boot from, with what is known of the system on it.
type Base struct {
	Path   string
	Format string // FormatQcow2 or FormatRaw
	// Kernel, Initrd and Append boot the disk without firmware; empty where
	// the disk boots by itself.
	Kernel, Initrd, Append string
	// User is who the seed's key lets in; "" where it is not known.
	User string
	// Arch is the architecture as Go names it; "" where it is not known.
	Arch string
	// Firmware is "bios", "uefi", or "" for either.
	Firmware string
	// CloudInit: the guest is configured by its own cloud-init.
	CloudInit bool
}

// Small is the name of the guest that Castra builds itself from the packages
// of a Debian host.
const Small = "small"

// HostError says: this computer cannot make the image.
type HostError = small.HostError

// Lookup finds an image that is made here by its name and architecture, as Go
// names it, without making anything. Ok is false where it has yet to be made;
// its paths are then those it will have. Any name but Small is an
// *UnknownError: those of the catalogue are for Find and Ensure.
func Lookup(home, name, arch string) (base Base, ok bool, err error) {
	if name != Small {
		return Base{}, false, unknown(name, arch)
	}
	g, ok := small.LookupFor(home, arch)
	return baseOf(g, arch), ok, nil
}

// Make finds an image that is made here by its name, and makes it where it is
// missing.
func Make(ctx context.Context, home, name, arch string, progress func(string)) (Base, error) {
	if name != Small {
		return Base{}, unknown(name, arch)
	}
	g, err := small.BuildFor(ctx, home, arch, progress)
	if err != nil {
		return Base{}, fmt.Errorf("image %s: %w", name, err)
	}
	return baseOf(g, arch), nil
}

func baseOf(g small.Guest, arch string) Base {
	return Base{
		Path: g.Disk, Format: FormatQcow2, Arch: arch,
		Kernel: g.Kernel, Initrd: g.Initrd, Append: g.Append, User: g.User,
	}
}
