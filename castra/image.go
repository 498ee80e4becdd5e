package castra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/image"
)

// imageMaker makes a named image that is not there yet.
type imageMaker func(ctx context.Context, name string) (image.Base, error)

// NoImageError says: a VM names no image, and there is no default one.
type NoImageError struct{ Tried string }

func (e *NoImageError) Error() string {
	return fmt.Sprintf("no base image: none is named, and there is no %s", e.Tried)
}
func (e *NoImageError) Unwrap() error { return fs.ErrNotExist }

// Hint says what to do next.
func (e *NoImageError) Hint() string {
	return `set image = "small" or base_image = "path/to/disk.qcow2" in [[vms]], or CASTRA_QCOW to a path`
}

// EnsureImage makes the image called name under Options.Home where it is not
// there yet, and gives the path of its disk. Reporter hears of the progress;
// nil is silence.
func EnsureImage(ctx context.Context, o Options, name string, r event.Reporter) (disk string, err error) {
	home, err := homeOf(o)
	if err != nil {
		return "", err
	}
	base, err := (&Project{Reporter: r, home: home}).makeImage(ctx, name)
	return base.Path, err
}

// baseImage finds the disk a VM boots from, in this order: base_image, image,
// CASTRA_QCOW, the workspace's default image. Its header is looked at each
// time: QEMU must never be given an image that names files of the host.
func (p *Project) baseImage(ctx context.Context, vm config.VM, make imageMaker) (image.Base, error) {
	if vm.Image != "" {
		base, ok, err := image.Lookup(p.home, vm.Image)
		if err != nil || ok || make == nil {
			return base, err
		}
		return make(ctx, vm.Image)
	}
	path := vm.BaseImage
	if path == "" {
		path = p.options.BaseImage
	}
	if path == "" {
		path = p.layout().DefaultImage()
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return image.Base{}, &NoImageError{path}
		}
	}
	_, err := image.Inspect(path)
	return image.Base{Path: path}, err
}

// makeImage makes a named image and tells of its progress.
func (p *Project) makeImage(ctx context.Context, name string) (image.Base, error) {
	if p.home == "" {
		return image.Base{}, errNoHome
	}
	began := time.Now()
	base, err := image.Make(ctx, p.home, name, func(phase string) {
		p.say(event.ImageProgress{Image: name, Phase: phase})
	})
	if err == nil {
		p.say(event.ImageVerified{Image: name, Path: base.Path, ElapsedMS: time.Since(began).Milliseconds()})
	}
	return base, err
}
