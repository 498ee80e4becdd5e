package bootstrap

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Digest identifies what a run would do: the script, the payload's names,
// modes, symlink targets and bytes, the environment and the checks. In mode
// auto a guest whose last good run had the same digest needs no other. It is
// keyed, since it stands in records, logs and events: whoever reads these could
// else try out which values of the environment give it.
func (p Plan) Digest() (string, error) {
	d := digester{hmac.New(sha256.New, p.Key)}
	d.add("castra bootstrap 1")
	if err := d.file("script", p.Script); err != nil {
		return "", fmt.Errorf("digest of bootstrap of %s: %w", p.VM, err)
	}
	if err := d.tree(p.Payload); err != nil {
		return "", fmt.Errorf("digest of bootstrap of %s: %w", p.VM, err)
	}
	for _, key := range p.keys() {
		d.add("env", key, p.Env[key])
	}
	d.add("verify", p.VerifyCommand, p.VerifyPath)
	return "sha256:" + hex.EncodeToString(d.hash.Sum(nil)), nil
}

type digester struct{ hash hash.Hash }

// add hashes fields with their lengths, so that no two lists look the same.
func (d digester) add(fields ...string) {
	for _, f := range fields {
		d.length(int64(len(f)))
		_, _ = io.WriteString(d.hash, f)
	}
}

func (d digester) length(n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	_, _ = d.hash.Write(b[:])
}

func (d digester) file(kind, path string) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	content := sha256.New()
	if _, err := io.Copy(content, file); err != nil {
		return err
	}
	d.add(kind, string(content.Sum(nil)))
	return nil
}

func (d digester) tree(payload string) error {
	if payload == "" {
		return nil
	}
	root, err := filepath.EvalSymlinks(payload)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if path == root && !info.IsDir() {
			name = filepath.Base(payload) // the guest sees it by this name
		}
		d.add("payload", filepath.ToSlash(name), info.Mode().String())
		switch info.Mode().Type() {
		case fs.ModeDir:
			return nil
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			d.add(target)
			return err
		case 0:
			return d.file("content", path)
		}
		return fmt.Errorf("%s: is neither a file, a directory nor a symlink", path)
	})
}
