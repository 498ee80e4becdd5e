package image

import (
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"slices"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/image/unpack"
)

// factsFormat is the version of facts.json.
const factsFormat = 1

// facts is what facts.json says of the disk beside it. It is no proof: a disk
// counts as whole only while it has the identity that it had when its digest
// was last taken, on this boot.
type facts struct {
	Format int         `json:"format"`
	URL    string      `json:"url"`
	Digest string      `json:"digest"` // of the download
	Packed unpack.Form `json:"packed,omitempty"`
	Disk   diskFacts   `json:"disk"`
	// Checked is nil while the digest of the disk is to be taken anew.
	Checked *checked `json:"checked,omitempty"`
}

type diskFacts struct {
	Name        string `json:"name"`
	Format      string `json:"format"`
	Digest      string `json:"digest"` // that of the download, unless it was packed
	Bytes       int64  `json:"bytes"`
	VirtualSize uint64 `json:"virtual_size"`
}

// checked is the file whose digest was taken, and the boot it was taken on.
type checked struct {
	Identity host.Identity `json:"identity"`
	Boot     string        `json:"boot"`
}

// holds tells that f's digest has been taken since it last changed.
func (c *checked) holds(f *os.File) bool {
	id, err := host.Identify(f)
	return err == nil && c != nil && c.Identity == id && c.Boot != "" && c.Boot == host.BootID()
}

// facts reads what is recorded of the disk of a download; ok is false where
// there is nothing that can be of it.
func (s *slot) facts(of digest.Digest) (f facts, ok bool) {
	data, err := readSmall(s.root, factsName)
	if err != nil {
		return facts{}, false
	}
	return parseFacts(data, of)
}

func parseFacts(data []byte, of digest.Digest) (f facts, ok bool) {
	if json.Unmarshal(data, &f) != nil {
		return facts{}, false
	}
	disk, err := digest.Parse(f.Disk.Digest)
	ok = err == nil && f.Format == factsFormat && f.Digest == of.String() &&
		slices.Contains(diskNames, f.Disk.Name) && f.Disk.Name == "disk."+f.Disk.Format &&
		(f.Packed != unpack.None || disk == of)
	return f, ok
}

func (s *slot) write(f facts) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(s.root, factsName, append(data, '\n'), 0o600)
}

// disk tells of the disk that f is of.
func (s *slot) disk(f facts) Disk {
	of, _ := digest.Parse(f.Digest) // facts has looked at it
	return Disk{Path: s.path(f.Disk.Name), Format: f.Disk.Format, Bytes: f.Disk.Bytes, VirtualSize: f.Disk.VirtualSize, Digest: of}
}

// trusted gives the disk where it need not be hashed.
func (s *slot) trusted(of digest.Digest) (Disk, bool) {
	f, ok := s.facts(of)
	if !ok {
		return Disk{}, false
	}
	file, err := openOwn(s.root, f.Disk.Name)
	if err != nil {
		return Disk{}, false
	}
	defer file.Close()
	return s.disk(f), f.Checked.holds(file) && f.Checked.Identity.Bytes == f.Disk.Bytes
}

// discard removes the disk and what is known of it. Those who have the disk
// open, or a link to it, keep it.
func (s *slot) discard() error {
	for _, name := range append([]string{factsName}, diskNames...) {
		if err := removeName(s.root, name); err != nil {
			return err
		}
	}
	return nil
}

// exists tells which disk there is; "" of none.
func (s *slot) exists() string {
	for _, name := range diskNames {
		if _, err := s.root.Lstat(name); err == nil {
			return name
		}
	}
	return ""
}

// size is that of a file in bytes; 0 where there is none.
func (s *slot) size(name string) int64 {
	st, err := s.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}

// withoutSecrets is a URL that may be written down.
func withoutSecrets(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// readOnly is the mode of disks.
const readOnly fs.FileMode = 0o400
