package guest

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Download copies a file or a directory out of the guest. As with cp, it gets
// the name localPath, or its own name in localPath where that is a directory;
// a directory is merged into one of that name, whose mode stays, and of
// guestPath "dir/." the content alone is copied. A file appears under its name,
// or replaces another, only when it is complete. Modes (without setuid, setgid
// and sticky), symlinks, empty files and odd names are kept; guestPath itself is
// followed where it is a symlink. A relative guestPath begins in the user's home.
//
// The guest is not trusted: a name or a symlink that leads out of the copied
// directory is an error, and nothing outside it is written.
func (c *Client) Download(ctx context.Context, guestPath, localPath string) error {
	if err := c.download(ctx, guestPath, localPath); err != nil {
		return fmt.Errorf("download %s to %s: %w", guestPath, localPath, err)
	}
	return nil
}

const kindOf = `
if [ -d "$1" ]; then echo directory
elif [ -f "$1" ]; then echo file
elif [ -e "$1" ] || [ -L "$1" ]; then echo "$1: is neither a file nor a directory" >&2; exit 1
else echo "$1: no such file or directory" >&2; exit 1; fi`

func (c *Client) download(ctx context.Context, remote, local string) error {
	if err := checkPath(remote); err != nil {
		return err
	}
	remote = guestPath(remote)
	kind := &head{limit: 16}
	if err := c.script(ctx, nil, kind, kindOf, remote); err != nil {
		return err
	}
	local = localPlace(local, path.Base(remote))
	moved := c.counter()
	defer moved.end()
	if strings.TrimSpace(kind.String()) == "file" {
		root, err := os.OpenRoot(filepath.Dir(local))
		if err != nil {
			return err
		}
		defer root.Close()
		return c.downloadFile(ctx, remote, &target{root: root, moved: moved}, filepath.Base(local))
	}
	if err := os.Mkdir(local, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer root.Close()
	t := &target{root: root, moved: moved}
	hasTar, err := c.hasTar(ctx)
	switch {
	case err != nil:
		return err
	case hasTar:
		err = c.downloadTar(ctx, remote, t)
	default:
		err = c.downloadTree(ctx, remote, t)
	}
	return errors.Join(err, t.finish())
}

// sendFile says the mode in the first line. Where there is no stat, it is made
// up from what the user may do.
const sendFile = `
mode=$(stat -L -c %a "$1" 2>/dev/null) || { mode=644; [ ! -x "$1" ] || mode=755; }
echo "$mode"; exec cat "$1"`

func (c *Client) downloadFile(ctx context.Context, remote string, t *target, name string) error {
	return c.stream(ctx, func(r io.Reader) error { return takeFile(r, remote, t, name) }, sendFile, remote)
}

// takeFile reads what sendFile sends.
func takeFile(r io.Reader, remote string, t *target, name string) error {
	in := bufio.NewReader(r)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read the mode of %s: %w", remote, err)
	}
	mode, err := strconv.ParseUint(strings.TrimSpace(string(line)), 8, 16)
	if err != nil {
		return fmt.Errorf("read the mode of %s: %w", remote, err)
	}
	return writeFile(t.root, name, fs.FileMode(mode), t.moved.reader(in))
}

// stream runs a script whose output is read by receive, and fails when either
// does.
func (c *Client) stream(ctx context.Context, receive func(io.Reader) error, script string, args ...string) error {
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := receive(reader)
		reader.CloseWithError(err)
		done <- err
	}()
	err := c.script(ctx, nil, writer, script, args...)
	writer.CloseWithError(err) // nil is io.EOF
	received := <-done
	if received != nil && (err == nil || errors.Is(err, received)) {
		return received
	}
	return err
}

func (c *Client) downloadTar(ctx context.Context, remote string, t *target) error {
	return c.stream(ctx, func(r io.Reader) error {
		archive := tar.NewReader(r)
		for {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				// tar fills its last record up; it must not be left waiting.
				_, err = io.Copy(io.Discard, r)
				return err
			}
			if err != nil {
				return fmt.Errorf("read tar: %w", err)
			}
			if err := t.add(header, archive); err != nil {
				return err
			}
		}
	}, `cd "$1" && exec tar -c -f - .`, remote)
}

// list shows what is below a directory as type, mode, name and target, each
// ended by a NUL byte.
const list = `
cd "$1" || exit
entry() { printf '%s\0%s\0%s\0%s\0' "$@"; }
mode() { stat -c %a "$1" 2>/dev/null || { if [ -x "$1" ]; then echo 755; else echo 644; fi; }; }
each() {
	for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		if [ -L "$f" ]; then to=$(readlink "$f"; echo .) && entry l 777 "$f" "${to%??}"
		elif [ -d "$f" ]; then entry d "$(mode "$f")" "$f" "" && each "$f"
		elif [ -f "$f" ]; then entry f "$(mode "$f")" "$f" ""
		elif [ -e "$f" ]; then echo "$f: is neither a file, a directory nor a symlink" >&2; exit 1
		fi || exit
	done
}
each .`

func (c *Client) downloadTree(ctx context.Context, remote string, t *target) error {
	var files []string
	err := c.stream(ctx, func(r io.Reader) error {
		in := bufio.NewReader(r)
		for {
			fields, err := readFields(in)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			mode, err := strconv.ParseUint(fields[1], 8, 16)
			if err != nil {
				return fmt.Errorf("mode of %q: %w", fields[2], err)
			}
			header := &tar.Header{Name: fields[2], Mode: int64(mode), Linkname: fields[3]}
			switch fields[0] {
			case "d":
				header.Typeflag = tar.TypeDir
			case "l":
				header.Typeflag = tar.TypeSymlink
			default:
				files = append(files, fields[2])
				continue
			}
			if err := t.add(header, nil); err != nil {
				return err
			}
		}
	}, list, remote)
	if err != nil {
		return err
	}
	for _, name := range files {
		local, err := t.local(name)
		if err != nil {
			return err
		}
		if err := c.downloadFile(ctx, path.Join(remote, name), t, local); err != nil {
			return err
		}
	}
	return nil
}

const fieldMax = 64 << 10 // bytes of a name: Linux knows no longer path than 4 KiB

func readFields(in *bufio.Reader) ([4]string, error) {
	var fields [4]string
	for i := range fields {
		var b strings.Builder
		for {
			c, err := in.ReadByte()
			if err != nil {
				if i > 0 || b.Len() > 0 {
					err = io.ErrUnexpectedEOF
				}
				return fields, err
			}
			if c == 0 {
				break
			}
			if b.Len() == fieldMax {
				return fields, errors.New("a name in the guest is endless")
			}
			b.WriteByte(c)
		}
		fields[i] = b.String()
	}
	return fields, nil
}
