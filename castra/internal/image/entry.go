package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"castra.example/castra/castra/internal/image/digest"
)

// Entry is one image of the catalogue. All are cloud-init images that take
// their seed from NoCloud.
type Entry struct {
	Name, Arch string // Arch as Go names it: "amd64", "arm64"
	URL        string
	Digest     string // "sha512:…" or "sha256:…" of the file at URL
	Size       int64  // of the file at URL in bytes; 0: not known
	User       string // who the image's cloud-init makes, or "root"
	Firmware   string // "bios", "uefi", or "" for either
	Source     string // where the facts are from
	Default    bool   // used where no image is named
}

// UnknownError says: the catalogue has no image of this name for this
// architecture.
type UnknownError struct {
	Name, Arch string
	Known      []string // the names that there are for Arch, sorted
	others     []string // the architectures that the name exists for
}

func (e *UnknownError) Error() string {
	if len(e.others) > 0 {
		return fmt.Sprintf("image %q: not there for %s", e.Name, ArchName(e.Arch))
	}
	return fmt.Sprintf("image %q: no such image; known: %s", e.Name, strings.Join(e.Known, ", "))
}

// Hint says what to do next.
func (e *UnknownError) Hint() string {
	if len(e.others) > 0 {
		return "it exists for " + strings.Join(e.others, " and ") + " only: use a guest of that architecture, or another image"
	}
	return "mage images lists those that there are; any other one goes by base_image, a path or an https URL with its checksum"
}

// ArchName is an architecture by the name people write.
func ArchName(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return arch
}

// Catalogue lists the images that have a name, sorted by name and architecture.
func Catalogue() []Entry {
	return slices.SortedFunc(slices.Values(catalogue), func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch))
	})
}

// Named finds an image of the catalogue, or is an *UnknownError.
func Named(name, arch string) (Entry, error) {
	for _, e := range catalogue {
		if e.Name == name && e.Arch == arch {
			return e, nil
		}
	}
	return Entry{}, unknown(name, arch)
}

func unknown(name, arch string) *UnknownError {
	e := &UnknownError{Name: name, Arch: arch, Known: []string{Small}}
	for _, c := range Catalogue() {
		if c.Name == name {
			e.others = append(e.others, ArchName(c.Arch))
		}
		if c.Arch == arch {
			e.Known = append(e.Known, c.Name)
		}
	}
	slices.Sort(e.Known)
	return e
}

// DefaultEntry is the image that is used where none is named.
func DefaultEntry(arch string) (Entry, error) {
	for _, e := range catalogue {
		if e.Default && e.Arch == arch {
			return e, nil
		}
	}
	return Entry{}, &UnknownError{Name: "default", Arch: arch, Known: unknown("", arch).Known}
}

// From tells Ensure where to fetch the image: below mirror, a URL or an
// absolute path of a directory, by the last name in the entry's URL; from the
// entry's URL where mirror is "". An entry whose digest is none gives a Source
// without one, which Ensure refuses.
func (e Entry) From(mirror string) Source {
	d, _ := digest.Parse(e.Digest) // a test looks at each
	return Source{Name: e.Name, URL: e.URL, Digest: d, Size: e.Size, Mirror: mirror}
}
