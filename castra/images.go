package castra

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/report"
)

// ImageList is what there is to boot from. Its JSON form is that of `mage images -json`.
type ImageList struct {
	// Images are those with a name, sorted by it; then those of the store that have none.
	Images []ImageInfo `json:"images"`
}

// ImageInfo is one image.
type ImageInfo struct {
	Name     string `json:"name"` // "" of one that is known by its digest alone
	Arch     string `json:"arch"` // x86_64 or aarch64; "" where it is not known
	Default  bool   `json:"default,omitempty"`
	User     string `json:"user,omitempty"`     // who logs in
	Firmware string `json:"firmware,omitempty"` // bios or uefi; "" is both, or not known
	URL      string `json:"url,omitempty"`
	Digest   string `json:"digest,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"` // of the download; 0 where it is not known
	// Cached is the path of the disk, "" where it has yet to be fetched or built; CachedBytes what it takes on this computer.
	Cached      string `json:"cached,omitempty"`
	CachedBytes int64  `json:"cached_bytes,omitempty"`
	Source      string `json:"source,omitempty"` // where the digest was published
}

// ListImages lists the images that castra.toml can name, and what of them and of others is kept under Options.Home. It
// changes nothing, and asks nobody else.
func ListImages(ctx context.Context, o Options) (*ImageList, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	stored, err := image.All(home)
	if err != nil {
		return nil, err
	}
	byDir := map[string]image.Stored{}
	for _, s := range stored {
		byDir[s.Path] = s
	}
	take := func(i *ImageInfo, disk string) {
		i.Cached = disk
		i.CachedBytes = byDir[filepath.Dir(disk)].Bytes
		delete(byDir, filepath.Dir(disk))
	}
	l := &ImageList{Images: []ImageInfo{}}
	for _, arch := range []string{"amd64", "arm64"} {
		i := ImageInfo{Name: image.Small, Arch: image.ArchName(arch), User: "root"}
		if base, there, err := image.Lookup(home, image.Small, arch); err == nil && there {
			take(&i, base.Path)
		}
		l.Images = append(l.Images, i)
	}
	for _, e := range image.Catalogue() {
		i := ImageInfo{Name: e.Name, Arch: image.ArchName(e.Arch), Default: e.Default, User: e.User, Firmware: e.Firmware, URL: e.URL, Digest: e.Digest, Bytes: e.Size, Source: e.Source}
		if disk, there := image.Find(home, e.From("")); there {
			take(&i, disk.Path)
		}
		l.Images = append(l.Images, i)
	}
	for _, s := range stored {
		if _, left := byDir[s.Path]; left {
			address, digest := s.Facts()
			l.Images = append(l.Images, ImageInfo{Digest: digest, URL: address, Cached: s.Disk, CachedBytes: s.Bytes})
		}
	}
	return l, ctx.Err()
}

// write prints the list for people, in 80 columns where there are no long names.
func (l *ImageList) write(w io.Writer) error {
	var rows [][]string
	for _, i := range l.Images {
		name := i.Name
		switch {
		case name == "" && i.URL != "":
			name = report.Shorten(i.URL, 26)
		case name == "":
			name = "(a broken-off download)"
		case i.Default:
			name += " (default)"
		}
		size, state := "-", "to be fetched"
		if i.Bytes > 0 {
			size = report.Bytes(i.Bytes)
		}
		switch {
		case i.Cached != "":
			state = "here, " + report.Bytes(i.CachedBytes)
		case i.Name == "":
			state = "begun, " + report.Bytes(i.CachedBytes)
		case i.Name == image.Small:
			state = "to be built"
		}
		firmware := i.Firmware
		if firmware == "" && i.Name != "" {
			firmware = "either"
		}
		rows = append(rows, []string{name, i.Arch, i.User, firmware, size, state})
	}
	if err := report.Table(w, []string{"image", "arch", "user", "firmware", "size", "state"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, `in castra.toml: image = "NAME", with arch where it is not this computer's`)
	return err
}
