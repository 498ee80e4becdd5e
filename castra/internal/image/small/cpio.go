package small

import (
	"fmt"
	"io"
	"io/fs"
)

// Device numbers and mode bits as the kernel writes them.
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
	modeLink = 0o120000
)

// cpioWriter writes an archive in the "newc" format, the one the kernel unpacks as initrd. All entries belong to root and
// carry one time, so the same contents give the same bytes.
type cpioWriter struct {
	w     io.Writer
	inode int
	n     int
	err   error
}

func (c *cpioWriter) dir(name string, perm fs.FileMode) { c.entry(name, modeDir|int(perm), nil, 0, 0) }
func (c *cpioWriter) link(name, target string)          { c.entry(name, modeLink|0o777, []byte(target), 0, 0) }
func (c *cpioWriter) file(name string, perm fs.FileMode, data []byte) {
	c.entry(name, modeFile|int(perm), data, 0, 0)
}
func (c *cpioWriter) char(name string, perm fs.FileMode, major, minor int) {
	c.entry(name, modeChar|int(perm), nil, major, minor)
}

// close writes the trailer and returns the first error of all calls.
func (c *cpioWriter) close() error {
	c.inode = -1
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.err
}

func (c *cpioWriter) entry(name string, mode int, data []byte, major, minor int) {
	c.inode++
	c.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, epoch, len(data), 0, 0, major, minor, len(name)+1, 0))
	c.write(append([]byte(name), 0))
	c.pad()
	c.write(data)
	c.pad()
}

func (c *cpioWriter) pad() { c.write(make([]byte, -c.n&3)) }

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(p)
	c.n += n
}
