package castra

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/warm"
	"castra.example/castra/castra/internal/workspace"
)

// pruneImages removes the images under CASTRA_HOME that no VM runs from.
func pruneImages(ctx context.Context, home string, dry bool) ([]PrunedItem, error) {
	stored, err := image.All(home)
	if err != nil || len(stored) == 0 {
		return nil, err
	}
	if !dry {
		release, err := image.Alone(ctx, home)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	used, err := imagesInUse(home)
	if err != nil {
		return nil, err
	}
	var gone []PrunedItem
	var faults []error
	for _, s := range stored {
		if used(s.Path) || opened(s.Disk) {
			continue
		}
		item := PrunedItem{Path: s.Path, Kind: "image", Bytes: s.Bytes}
		if !dry {
			if item.Bytes, err = image.Remove(home, s); err != nil {
				faults = append(faults, err)
				continue
			}
		}
		gone = append(gone, item)
	}
	return gone, errors.Join(faults...)
}

// opened tells that a living QEMU has the disk open, or that it cannot be known:
// the record of a VM may be lost.
func opened(disk string) bool {
	if disk == "" {
		return false
	}
	used, err := qemu.InUse(disk)
	return used || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// pruneTemplates removes the templates that nobody uses.
func pruneTemplates(home string, dry bool) ([]PrunedItem, error) {
	store, err := warm.Open(home)
	if err != nil {
		return nil, err
	}
	all, err := store.All()
	leftovers, leftErr := store.Leftovers()
	gone := slices.DeleteFunc(slices.Concat(all, leftovers), func(i warm.Info) bool { return i.InUse })
	if !dry {
		var keys []string
		for _, info := range gone {
			keys = append(keys, info.Key)
		}
		var removeErr error
		gone, _, removeErr = store.Remove(keys...)
		err = errors.Join(err, removeErr)
	}
	var items []PrunedItem
	for _, info := range gone {
		items = append(items, PrunedItem{Path: filepath.Join(store.Dir(), info.Key), Kind: "template", Bytes: info.Bytes})
	}
	return items, errors.Join(err, leftErr)
}

// imagesInUse tells whether a VM that is on record in any workspace has an image
// of a directory below it: it runs, or is about to.
func imagesInUse(home string) (func(dir string) bool, error) {
	entries, err := workspace.All(home)
	var bases []string
	for _, e := range entries {
		ws, err := workspace.Open(e.Root)
		if err != nil {
			continue
		}
		session, err := ws.LoadSession()
		if err != nil {
			continue
		}
		for _, r := range session.VMs {
			bases = append(bases, r.Overlay.BaseImage)
		}
	}
	return func(dir string) bool {
		for _, base := range bases {
			if strings.HasPrefix(base, dir+string(filepath.Separator)) {
				return true
			}
		}
		return false
	}, err
}
