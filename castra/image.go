package castra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/seed"
)

// EnsureImage makes or fetches the image called name, for guests of this computer's architecture, under Options.Home where
// it is not there yet, and gives the path of its disk. Reporter hears of the progress; nil is silence.
func EnsureImage(ctx context.Context, o Options, name string, r event.Reporter) (disk string, err error) {
	home, err := homeOf(o)
	if err != nil {
		return "", err
	}
	img, err := (&Project{Reporter: r, options: o, home: home}).baseImage(ctx, config.VM{Image: name}, true)
	return img.Path, err
}

// vmImage finds all that a VM boots from. What is not here yet is made or fetched where get is set; else its path stays empty.
func (p *Project) vmImage(ctx context.Context, vm config.VM, get bool) (vmImage, error) {
	img, err := p.baseImage(ctx, vm, get)
	if err != nil {
		return img, err
	}
	if img.userData, err = readUserData(vm.UserData); err != nil {
		return img, err
	}
	if wanted := int64(vm.DiskMiB) << 20; wanted > 0 && wanted < img.size {
		return img, &DiskSizeError{img.Path, img.size, vm.DiskMiB}
	}
	return img, nil
}

// DiskSizeError says: castra.toml wants a disk that is smaller than the base image.
type DiskSizeError struct {
	Path      string
	Has       int64 // bytes
	WantedMiB int
}

func (e *DiskSizeError) Error() string {
	return fmt.Sprintf("disk = \"%d MiB\" is smaller than base image %s, which has %d MiB", e.WantedMiB, e.Path, (e.Has+1<<20-1)>>20)
}

// Hint says what to do next.
func (e *DiskSizeError) Hint() string {
	return "a disk cannot be made smaller: write a larger one, or remove disk"
}

// baseImage finds the disk a VM boots from, in this order: image, base_image, CASTRA_QCOW, the default. Its header is looked
// at each time: QEMU must never be given an image that names files of the host.
func (p *Project) baseImage(ctx context.Context, vm config.VM, get bool) (vmImage, error) {
	switch arch := archOf(vm); {
	case vm.Image == image.Small:
		return p.smallImage(ctx, arch, get)
	case vm.Image != "":
		entry, err := image.Named(vm.Image, arch)
		if err != nil {
			return vmImage{}, p.unknownImage(vm, err)
		}
		return p.catalogueImage(ctx, entry, get)
	case vm.BaseURL != "":
		src, err := image.URLSource(vm.BaseURL, vm.Checksum)
		if err != nil {
			return vmImage{}, err
		}
		return p.storedImage(ctx, src, image.Base{Arch: arch}, get)
	case vm.BaseImage != "":
		return p.fileImage(ctx, vm.BaseImage, vm.Checksum, get)
	case p.options.BaseImage != "":
		return p.fileImage(ctx, p.options.BaseImage, "", get)
	default:
		return p.defaultImage(ctx, arch, get)
	}
}

// unknownImage says where castra.toml names an image that there is not, and what may be meant.
func (p *Project) unknownImage(vm config.VM, err error) error {
	var unknown *image.UnknownError
	if !errors.As(err, &unknown) || p.config == nil {
		return err
	}
	e := &config.Error{File: p.config.File, Line: vm.Line, Key: "image", Problem: err.Error(), Help: hint(err)}
	if near := config.Nearest(vm.Image, unknown.Known); near != "" {
		e.Help = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// fileImage is a disk of the user's, compared with its digest where there is one.
func (p *Project) fileImage(ctx context.Context, path, checksum string, get bool) (vmImage, error) {
	info, err := image.Inspect(path)
	if err != nil {
		return vmImage{}, err
	}
	if checksum != "" && get {
		began, name := time.Now(), filepath.Base(path)
		sum, size, err := image.Verify(ctx, path, checksum, p.imageReport(name))
		if err != nil {
			return vmImage{}, err
		}
		p.say(event.ImageVerified{Image: name, Path: path, Digest: sum, Bytes: size, ElapsedMS: time.Since(began).Milliseconds()})
	}
	return vmImage{Base: image.Base{Path: path, Format: info.Format}, size: int64(info.VirtualSize)}, nil
}

// smallImage is the guest that Castra builds itself.
func (p *Project) smallImage(ctx context.Context, arch string, get bool) (vmImage, error) {
	if p.home == "" {
		return vmImage{}, errNoHome
	}
	base, there, err := image.Lookup(p.home, image.Small, arch)
	if err != nil || !there && !get {
		return vmImage{}, err
	}
	if !there {
		began := time.Now()
		base, err = image.Make(ctx, p.home, image.Small, arch, func(phase string) {
			p.say(event.ImageProgress{Image: image.Small, Phase: phase})
		})
		if err != nil {
			return vmImage{}, err
		}
		p.say(event.ImageVerified{Image: image.Small, Path: base.Path, ElapsedMS: time.Since(began).Milliseconds()})
	}
	info, err := image.Inspect(base.Path)
	return vmImage{Base: base, size: int64(info.VirtualSize)}, err
}

func (p *Project) catalogueImage(ctx context.Context, e image.Entry, get bool) (vmImage, error) {
	return p.storedImage(ctx, e.From(p.options.ImageMirror), image.Base{Arch: e.Arch, User: e.User, Firmware: e.Firmware, CloudInit: true}, get)
}

// storedImage is one of the image store, fetched where it is not there.
func (p *Project) storedImage(ctx context.Context, src image.Source, known image.Base, get bool) (vmImage, error) {
	if p.home == "" {
		return vmImage{}, errNoHome
	}
	disk, there := image.Find(p.home, src)
	if get {
		var err error
		began := time.Now()
		if disk, err = image.Ensure(ctx, p.home, src, p.imageReport(src.Title())); err != nil {
			return vmImage{}, err
		}
		p.say(event.ImageVerified{Image: src.Title(), Path: disk.Path, Digest: disk.Digest.String(), Bytes: disk.Bytes, ElapsedMS: time.Since(began).Milliseconds()})
	} else if !there {
		return vmImage{Base: known}, nil
	}
	known.Path, known.Format = disk.Path, disk.Format
	return vmImage{Base: known, size: int64(disk.VirtualSize), stored: &disk, title: src.Title()}, nil
}

// imageReport tells of the work on an image, but not of what is done at once.
func (p *Project) imageReport(name string) image.Report {
	began := time.Now()
	return image.Report{
		Progress: func(phase string, done, total int64) {
			if time.Since(began) > reportEvery || strings.HasPrefix(phase, "downloading") {
				p.say(event.ImageProgress{Image: name, Phase: phase, Done: done, Total: total})
			}
		},
		Waiting: func(what string) { p.say(event.ImageProgress{Image: name, Phase: "waiting for " + what}) },
	}
}

// defaultImage is the catalogue's default, or what the user has put in its place in the workspace, with its digest beside.
func (p *Project) defaultImage(ctx context.Context, arch string, get bool) (vmImage, error) {
	entry, err := image.DefaultEntry(arch)
	if err != nil {
		return vmImage{}, err
	}
	path := p.layout().DefaultImage()
	if arch != goarch {
		return p.catalogueImage(ctx, entry, get)
	}
	own, err := image.Sidecar(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // no image, or none with a digest
		if err := p.adopt(ctx, path, entry, get); err != nil {
			return vmImage{}, err
		}
	case err != nil:
		return vmImage{}, err
	case own != entry.Digest:
		return p.fileImage(ctx, path, own, get)
	}
	return p.catalogueImage(ctx, entry, get)
}

// adopt takes a file at the default image's place into the store where it is that image. Any other is of nobody knows where.
func (p *Project) adopt(ctx context.Context, path string, e image.Entry, get bool) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || !get {
		return nil
	}
	src := e.From("")
	if _, there := image.Find(p.home, src); there {
		return nil
	}
	return image.Adopt(ctx, p.home, src, path, p.imageReport(src.Title()))
}

// placeImages links the images that VMs boot from into the workspace. It is for people who look there: VMs boot from the store.
func (u *upRun) placeImages(ctx context.Context) {
	var placed []string
	for _, vm := range u.names {
		img := u.site.images[vm]
		if img.stored == nil {
			continue
		}
		var path string
		switch c := u.plans[vm]; {
		case c.Image != "":
			path = u.ws.ImageLink(c.Image+"-"+image.ArchName(c.arch), img.Format)
		case c.BaseURL == "" && c.arch == goarch:
			path = u.ws.DefaultImage()
		default:
			path = u.ws.ImageLink(img.stored.Digest.Hex[:12], img.Format)
		}
		if slices.Contains(placed, path) {
			continue
		}
		placed = append(placed, path)
		if err := image.Place(ctx, *img.stored, path); err != nil {
			u.warn("", fmt.Sprintf("image %s is not linked into the workspace: %v", img.title, err), hint(err))
		}
	}
}

// readUserData reads the project's own part of a guest's user-data.
func readUserData(path string) ([]byte, error) {
	const most = 1 << 20
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("user_data: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("user_data %s: %w", path, err)
	case len(data) > most:
		return nil, &usageError{fmt.Sprintf("user_data %s is larger than 1 MiB", path), "put large files into the bootstrap's payload"}
	}
	if err := seed.Check(data); err != nil {
		return nil, fmt.Errorf("user_data %s: %w", path, err)
	}
	return data, nil
}
