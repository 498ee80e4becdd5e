package small

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Manifest says what a guest was made from. It lies beside the guest as manifest.json.
type Manifest struct {
	Recipe       string   `json:"recipe"` // sha256 over the embedded files and constants
	Arch         string   `json:"arch"`
	Packages     []pkg    `json:"packages"`
	Outputs      []Output `json:"outputs"`
	FetchSeconds float64  `json:"fetch_seconds"`
	BuildSeconds float64  `json:"build_seconds"` // without fetching
}

// Output is one file of the guest.
type Output struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	SHA512 string `json:"sha512"`
}

// ReadManifest reads the manifest of a built guest.
func ReadManifest(file string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", file, err)
	}
	return m, nil
}

// writeManifest is the build's last step: a guest without it is not complete.
func (b *builder) writeManifest(set packageSet, fetched time.Time) error {
	m := Manifest{Recipe: recipeDigest(b.target), Arch: b.target.arch, Packages: set.all(), FetchSeconds: seconds(fetched.Sub(b.started))}
	for _, name := range []string{diskName, kernelName, initrdName} {
		out, err := describe(b.path(outDir, name))
		if err != nil {
			return err
		}
		out.Name = name
		m.Outputs = append(m.Outputs, out)
	}
	m.BuildSeconds = seconds(time.Since(fetched))
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.path(outDir, manifestName), append(data, '\n'), 0o444)
}

// describe digests a file that is now final, flushes it and takes away the permission to write it.
func describe(file string) (Output, error) {
	f, err := os.Open(file)
	if err != nil {
		return Output{}, err
	}
	defer f.Close()
	short, long := sha256.New(), sha512.New()
	n, err := io.Copy(io.MultiWriter(short, long), f)
	if err := errors.Join(err, f.Sync(), f.Chmod(0o444)); err != nil {
		return Output{}, fmt.Errorf("read %s: %w", file, err)
	}
	return Output{Bytes: n, SHA256: hex.EncodeToString(short.Sum(nil)), SHA512: hex.EncodeToString(long.Sum(nil))}, nil
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Millisecond)) / float64(time.Second)
}
