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
	"strings"
)

// Upload copies a file or a directory into the guest. As with cp, it gets the
// name guestPath, or its own name in guestPath where that is a directory; a
// directory is merged into one of that name, whose mode stays, and of localPath
// "dir/." the content alone is copied. Modes, symlinks, empty files and odd
// names are kept, owners are not; localPath itself is followed where it is a
// symlink. A relative guestPath begins in the user's home.
//
// A file appears under its name, or replaces another, only when it is complete.
// Where ctx ends first, the guest removes what it has of it. The guest needs a
// POSIX shell with cat, chmod, mkdir, mv, rm and wc, and for directories tar or ln.
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
	if remote, err = c.place(ctx, remote, filepath.Base(local)); err != nil {
		return err
	}
	moved := c.counter()
	defer moved.end()
	if !info.IsDir() {
		return c.uploadFile(ctx, local, remote, moved)
	}
	hasTar, err := c.hasTar(ctx)
	if err != nil {
		return err
	}
	if hasTar {
		return c.uploadTar(ctx, local, remote, moved)
	}
	return c.uploadTree(ctx, local, remote, moved)
}

const receiveFile = `
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
umask 077
part="${1%/*}/$4"
mkdir "$part" || exit
trap 'rm -rf "$part"' EXIT
cat > "$part/file" || exit
got=$(wc -c < "$part/file") || exit
[ "$((got))" -eq "$3" ] || { echo "only $((got)) of $3 bytes arrived" >&2; exit 1; }
chmod "$2" "$part/file" && mv -f "$part/file" "$1"`

func (c *Client) uploadFile(ctx context.Context, local, remote string, moved *counter) error {
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
	content := moved.reader(io.LimitReader(file, info.Size()))
	mode, size := octal(info.Mode()), strconv.FormatInt(info.Size(), 10)
	return c.receive(ctx, content, receiveFile, guestPath(remote), mode, size, partName())
}

func octal(mode fs.FileMode) string { return strconv.FormatInt(int64(mode.Perm()), 8) }

// receiveTar takes modes from the archive (-p) and owners not (-o). It unpacks
// beside the target, or in it where it is there to be merged into, since tar
// leaves half a file when its input breaks off.
const receiveTar = `
merge() (
	from=$1 to=$2
	chmod u+rwx "$from" || exit
	set --
	for f in "$from"/* "$from"/.[!.]* "$from"/..?*; do
		if [ -d "$f" ] && [ ! -L "$f" ] && [ -d "$to/${f##*/}" ]; then merge "$f" "$to/${f##*/}" || exit
		elif [ -e "$f" ] || [ -L "$f" ]; then
			set -- "$@" "$f"
			[ $# -lt 100 ] || { mv -f "$@" "$to/" && set --; } || exit
		fi
	done
	[ $# -eq 0 ] || mv -f "$@" "$to/"
)
umask 077
if [ -d "$1" ]; then part="$1/$2"; else part="${1%/*}/$2"; fi
mkdir "$part" || exit
trap 'chmod -R u+rwx "$part" 2>/dev/null; rm -rf "$part"' EXIT
(cd "$part" && exec tar -x -p -o -f -) || exit
if [ -d "$1" ]; then merge "$part" "$1"; else mv "$part" "$1"; fi`

func (c *Client) uploadTar(ctx context.Context, local, remote string, moved *counter) error {
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := writeTar(writer, local, moved)
		writer.CloseWithError(err)
		done <- err
	}()
	err := c.receive(ctx, reader, receiveTar, guestPath(remote), partName())
	reader.Close()
	if packed := <-done; packed != nil && err == nil {
		err = packed
	}
	return err
}

// writeTar packs the content of dir. The format is GNU's, since busybox does
// not know the long names of PAX.
func writeTar(w io.Writer, dir string, moved *counter) error {
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
		_, err = io.CopyN(archive, moved.reader(file), header.Size)
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
// file by file, and the modes of new directories last, since one may forbid to
// write in it.
func (c *Client) uploadTree(ctx context.Context, local, remote string, moved *counter) error {
	var shape bytes.Buffer
	var dirs, files []entry
	shape.WriteString("set -e\numask 077\n")
	err := walk(local, func(e entry) error {
		to := Quote(guestPath(path.Join(remote, e.name)))
		switch e.mode.Type() {
		case fs.ModeDir:
			fmt.Fprintf(&shape, "[ -d %[1]s ] || { mkdir %[1]s; echo %[2]d; }\n", to, len(dirs))
			dirs = append(dirs, e)
		case fs.ModeSymlink:
			fmt.Fprintf(&shape, "rm -f %[1]s\nln -s -- %[2]s %[1]s\n", to, Quote(e.target))
		default:
			files = append(files, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	made := &head{limit: 16 * len(dirs)}
	if err := c.script(ctx, &shape, made, readScript); err != nil {
		return err
	}
	for _, e := range files {
		if err := c.uploadFile(ctx, e.path, path.Join(remote, e.name), moved); err != nil {
			return err
		}
	}
	var modes bytes.Buffer
	modes.WriteString("set -e\n")
	for number := range strings.FieldsSeq(made.String()) {
		if i, err := strconv.Atoi(number); err == nil && i >= 0 && i < len(dirs) {
			fmt.Fprintf(&modes, "chmod %s %s\n", octal(dirs[i].mode), Quote(guestPath(path.Join(remote, dirs[i].name))))
		}
	}
	return c.script(ctx, &modes, nil, readScript)
}

// readScript runs a script that comes on standard input, and only when it has
// come as a whole.
const readScript = `script=$(cat) && eval "$script"`
