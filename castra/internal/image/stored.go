package image

import (
	"os"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/small"
)

// Stored is one image that is kept under CASTRA_HOME, or what a killed command
// had made of one.
type Stored struct {
	Name string
	// Path is its directory; Disk the base image in it, "" where there is none.
	Path, Disk string
	Bytes      int64 // on disk
	// Current: the next Make would give this one.
	Current bool
}

// BusyError says: an image is being made, so none can be removed.
type BusyError = small.BusyError

// All lists the images kept under home, sorted by name.
func All(home string) ([]Stored, error) {
	kept, err := small.All(home)
	var all []Stored
	for _, k := range kept {
		all = append(all, Stored{k.Name, k.Dir, k.Disk, host.TreeUsage(os.DirFS(k.Dir), "."), k.Current})
	}
	return all, err
}

// Remove removes an image that All has listed, and gives the bytes on disk
// that this gave back. That no VM runs from it is the caller's to know. One
// that is gone is no error; while an image is being made it is a *BusyError.
func Remove(home string, s Stored) (int64, error) {
	freed := host.TreeUsage(os.DirFS(s.Path), ".")
	if err := small.Remove(home, s.Name); err != nil {
		return 0, err
	}
	return freed, nil
}
