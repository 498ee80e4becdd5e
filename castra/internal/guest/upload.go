package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
)

// Upload copies a file or a directory into the guest. guestPath is the name it
// gets there, not the directory it is put in; a directory is merged into one
// that exists. Modes, symlinks, empty files and odd names are kept, owners and
// times are not. The guest needs a POSIX shell with cat, chmod, mkdir, mv, rm
// and wc, and for directories tar or ln. A file appears under its name only when
// it is complete.
func (c *Client) Upload(ctx context.Context, localPath, guestPath string) error {
	if err := c.upload(ctx, localPath, guestPath); err != nil {
		return fmt.Errorf("upload %s to %s: %w", localPath, guestPath, err)
	}
	return nil
}

func (c *Client) upload(ctx context.Context, local, remote string) error {
	if err := checkPath(remote); err != nil {
		return err
	}
	info, err := os.Stat(local)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return c.uploadFile(ctx, local, remote)
	}
	hasTar, err := c.hasTar(ctx)
	if err != nil {
		return err
	}
	if hasTar {
		return c.uploadTar(ctx, local, remote)
	}
	return c.uploadTree(ctx, local, remote)
}

const receiveFile = `
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
umask 077
part="${1%/*}/.castra-part-$$"
trap 'rm -f "$part"' EXIT
cat > "$part" || exit
got=$(wc -c < "$part") || exit
[ "$((got))" -eq "$3" ] || { echo "only $((got)) of $3 bytes arrived" >&2; exit 1; }
chmod "$2" "$part" && mv -f "$part" "$1"`

func (c *Client) uploadFile(ctx context.Context, local, remote string) error {
	file, err := os.Open(local)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: is neither a file, a directory nor a symlink", local)
	}
	mode, size := octal(info.Mode()), strconv.FormatInt(info.Size(), 10)
	return c.script(ctx, io.LimitReader(file, info.Size()), nil, receiveFile, guestPath(remote), mode, size)
}

func octal(mode fs.FileMode) string { return strconv.FormatInt(int64(mode.Perm()), 8) }

// receiveTar takes modes from the archive (-p) and owners not (-o).
const receiveTar = `mkdir -p "$1" && cd "$1" && exec tar -x -p -o -f -`

func (c *Client) uploadTar(ctx context.Context, local, remote string) error {
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := writeTar(writer, local)
		writer.CloseWithError(err)
		done <- err
	}()
	err := c.script(ctx, reader, nil, receiveTar, guestPath(remote))
	reader.Close()
	if packed := <-done; packed != nil && err == nil {
		err = packed
	}
	return err
}

// writeTar packs the content of dir. The format is GNU's, since busybox does
// not know the long names of PAX.
func writeTar(w io.Writer, dir string) error {
	archive := tar.NewWriter(w)
	err := walk(dir, func(e entry) error {
		header := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), ModTime: e.info.ModTime(), Format: tar.FormatGNU}
		switch e.mode.Type() {
		case fs.ModeDir:
			header.Typeflag, header.Name = tar.TypeDir, e.name+"/"
			return archive.WriteHeader(header)
		case fs.ModeSymlink:
			header.Typeflag, header.Linkname = tar.TypeSymlink, e.target
			return archive.WriteHeader(header)
		}
		header.Typeflag, header.Size = tar.TypeReg, e.info.Size()
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		file, err := os.Open(e.path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.CopyN(archive, file, header.Size)
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

type entry struct {
	path   string // on this computer
	name   string // below the root, with slashes
	mode   fs.FileMode
	info   fs.FileInfo
	target string // of a symlink
}

// walk visits what is in dir, in order of names, parents first.
func walk(dir string, visit func(entry) error) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		e := entry{path: p, name: filepath.ToSlash(name), mode: info.Mode(), info: info}
		switch e.mode.Type() {
		case 0, fs.ModeDir:
		case fs.ModeSymlink:
			if e.target, err = os.Readlink(p); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: is neither a file, a directory nor a symlink", p)
		}
		return visit(e)
	})
}

// uploadTree does without tar: directories and symlinks in one script, then
// file by file, and the modes of directories last, since one may forbid to
// write in it.
func (c *Client) uploadTree(ctx context.Context, local, remote string) error {
	var shape, modes bytes.Buffer
	var files []entry
	shape.WriteString("set -e\numask 077\n")
	modes.WriteString("set -e\n")
	err := walk(local, func(e entry) error {
		target := guestPath(path.Join(remote, e.name))
		switch e.mode.Type() {
		case fs.ModeDir:
			fmt.Fprintf(&shape, "mkdir -p %s\n", Quote(target))
			fmt.Fprintf(&modes, "chmod %s %s\n", octal(e.mode), Quote(target))
		case fs.ModeSymlink:
			fmt.Fprintf(&shape, "rm -f %[1]s\nln -s -- %[2]s %[1]s\n", Quote(target), Quote(e.target))
		default:
			files = append(files, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.script(ctx, &shape, nil, readScript); err != nil {
		return err
	}
	for _, e := range files {
		if err := c.uploadFile(ctx, e.path, path.Join(remote, e.name)); err != nil {
			return err
		}
	}
	return c.script(ctx, &modes, nil, readScript)
}

// readScript runs a script that comes on standard input, and only when it has
// come as a whole.
const readScript = `script=$(cat) && eval "$script"`
