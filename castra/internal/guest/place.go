package guest

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
)

// place is where a copy called name ends up in the guest: as with cp, in a
// directory that exists, and else under the given path itself.
func (c *Client) place(ctx context.Context, remote, name string) (string, error) {
	remote = guestPath(remote)
	there := &head{limit: 16}
	if err := c.script(ctx, nil, there, lookUp, remote); err != nil {
		return "", err
	}
	if strings.TrimSpace(there.String()) != "directory" || !isName(name) {
		return remote, nil
	}
	return strings.TrimRight(remote, "/") + "/" + name, nil
}

const lookUp = `
if [ -d "$1" ]; then echo directory; exit; fi
case $1 in */) echo "$1: no such directory in the guest" >&2; exit 1;; esac
[ -d "${1%/*}/" ] || { echo "${1%/*}: no such directory in the guest" >&2; exit 1; }`

// localPlace is the same on this computer.
func localPlace(local, name string) string {
	if info, err := os.Stat(local); err != nil || !info.IsDir() || !isName(name) {
		return local
	}
	return filepath.Join(local, name)
}

// isName is false for what has no name of its own: the copy of "dir/." is
// merged into the directory that it is put in.
func isName(base string) bool { return base != "." && base != ".." && base != "/" }

// partName is that of something incomplete. Nobody can take it beforehand.
func partName() string { return ".castra-part-" + rand.Text() }
