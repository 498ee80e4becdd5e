package image

import (
	"context"
	"fmt"

	"castra.example/castra/castra/internal/image/small"
)

// Base is a disk to boot from, with what is known of the system on it.
type Base struct {
	Path string
	// Kernel, Initrd and Append boot the disk without firmware; empty where
	// the disk boots by itself.
	Kernel, Initrd, Append string
	// User is who the seed's key lets in; "" where it is not known.
	User string
}

// Small is the name of the guest that Castra builds itself from the packages
// of a Debian host.
const Small = "small"

// HostError says: this computer cannot make the image.
type HostError = small.HostError

// Lookup finds an image by its name without making anything. Ok is false
// where it has yet to be made; its paths are then those it will have.
func Lookup(home, name string) (base Base, ok bool, err error) {
	if name != Small {
		return Base{}, false, unknown(name)
	}
	g, ok := small.Lookup(home)
	return baseOf(g), ok, nil
}

// Make finds an image by its name, and makes it where it is missing.
func Make(ctx context.Context, home, name string, progress func(string)) (Base, error) {
	if name != Small {
		return Base{}, unknown(name)
	}
	g, err := small.Build(ctx, home, progress)
	if err != nil {
		return Base{}, fmt.Errorf("image %s: %w", name, err)
	}
	return baseOf(g), nil
}

func unknown(name string) error {
	return fmt.Errorf("image %q: no such image; known: %s", name, Small)
}

func baseOf(g small.Guest) Base {
	return Base{Path: g.Disk, Kernel: g.Kernel, Initrd: g.Initrd, Append: g.Append, User: g.User}
}
