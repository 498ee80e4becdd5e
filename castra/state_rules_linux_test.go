package castra

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cell is one state that a workspace with one VM may be left in. The last
// dimension, the lock, is that every cell is tried with the workspace's lock
// held by another command as well: nothing but status then does anything.
type cell struct{ pidfile, socket, overlay, record, boot string }

// What stands in the workspace. A VM lives where it holds the lock on its
// pidfile (qemu) or serves its monitor (ours).
var (
	pidfiles = []string{"absent", "empty", "stale", "qemu", "stranger", "hostile", "directory"}
	sockets  = []string{"absent", "stale", "ours", "foreign", "file"}
	overlays = []string{
		"absent",
		"ours",     // Castra's own place, the file on record
		"replaced", // Castra's own place, and not the file on record
		"held",     // Castra's own place, and another QEMU has it open
		"placed",   // where castra.toml says, the file on record
		"users",    // where castra.toml says, a file of the user's
	}
	records = []string{"absent", "right", "corrupt", "newer", "elsewhere"} // the last: written where the workspace was before
	boots   = []string{"this", "other"}
)

// stateRules are the outcomes. Of each verb the first line that fits decides,
// but a line with + adds what is in the way, and goes on; where none decides,
// and nothing is in the way, the outcome is done. The columns may hold
// alternatives, * for all, and ! before what does not fit.
//
// Done is, of down and clean, a clean slate; of up, one VM that runs.
const stateRules = `
#verb   pidfile           socket       overlay      record                 boot    outcome

# The lock tells that a VM lives, and a monitor served from the workspace.
status  *                 ours         *            *                      *       running
status  qemu              *            *            *                      *       not responding
# Nobody took down what this boot's record tells of. After a reboot, all are stopped.
status  *                 *            *            right,elsewhere        this    crashed
status  *                 *            *            *                      *       stopped

# Nothing tells of a VM.
down    absent            absent,file  absent,placed,users  absent,corrupt,newer  *  nothing
# A QEMU that ends in order removes files at its pidfile's and its monitor's path. Without one they are in the way.
down    stranger,hostile  !ours        *            *                      *       +pidfile
down    directory         *            *            *                      *       +pidfile
down    !qemu             file         *            *                      *       +socket
down    *                 *            held         *                      *       +overlay
# The path that castra.toml gives is believed where the record tells whose the file is.
down    *                 *            users        right,elsewhere        *       +overlay

# What a later Castra wrote is not removed, and nothing under a VM that lives.
clean   *                 *            *            newer                  *       newer
clean   *                 ours         *            *                      *       runs
clean   qemu              *            *            *                      *       runs
clean   stranger,hostile,directory  *  *            *                      *       +pidfile
clean   absent            file         absent,placed,users  absent,corrupt  *      nothing
clean   *                 file         *            *                      *       +socket
clean   *                 *            held         *                      *       +overlay
clean   *                 *            users        right,elsewhere        *       +overlay

# One that lives is left alone: it is as configured, or must be taken down first.
up      *                 *            *            newer                  *       newer
up      *                 ours         *            right,elsewhere        *       done
up      qemu              *            *            right,elsewhere        *       silent
up      qemu              *            *            absent,corrupt         *       lost
up      *                 ours         *            absent,corrupt         *       lost
up      stranger,hostile,directory  *  *            *                      *       +pidfile
up      *                 file         *            *                      *       +socket
up      *                 *            held,users   *                      *       +overlay
# Castra cannot know that it made it.
up      *                 *            placed       absent,corrupt         *       +overlay
`

// fits tells that a column allows a value.
func fits(column, value string) bool {
	if unwanted, ok := strings.CutPrefix(column, "!"); ok {
		return unwanted != value
	}
	for alternative := range strings.SplitSeq(column, ",") {
		if alternative == "*" || alternative == value {
			return true
		}
	}
	return false
}

// outcome is what the rules say of a verb.
func (c cell) outcome(t testing.TB, verb string) string {
	t.Helper()
	var way []string
	for line := range strings.Lines(stateRules) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != verb {
			continue
		}
		columns := len(strings.Fields("verb pidfile socket overlay record boot"))
		require.Greater(t, len(f), columns, line)
		if !fits(f[1], c.pidfile) || !fits(f[2], c.socket) || !fits(f[3], c.overlay) || !fits(f[4], c.record) || !fits(f[5], c.boot) {
			continue
		}
		outcome := strings.Join(f[columns:], " ")
		if added, ok := strings.CutPrefix(outcome, "+"); ok {
			way = append(way, added)
			continue
		}
		return outcome
	}
	if len(way) > 0 {
		return strings.Join(way, " ")
	}
	return "done"
}

func (c cell) String() string {
	return fmt.Sprintf("pidfile %s, socket %s, overlay %s, record %s, boot %s", c.pidfile, c.socket, c.overlay, c.record, c.boot)
}

// alive: a VM of this workspace lives.
func (c cell) alive() bool { return c.pidfile == "qemu" || c.socket == "ours" }

// readable: the record tells of the VM.
func (c cell) readable() bool { return c.record == "right" || c.record == "elsewhere" }

// explicit: castra.toml names a path for the overlay.
func (c cell) explicit() bool { return c.overlay == "placed" || c.overlay == "users" }

// cells are all states.
func cells() (all []cell) {
	for _, p := range pidfiles {
		for _, s := range sockets {
			for _, o := range overlays {
				for _, r := range records {
					for _, b := range boots {
						c := cell{p, s, o, r, b}
						if c.readable() || b == "this" { // a record that cannot be read tells of no boot
							all = append(all, c)
						}
					}
				}
			}
		}
	}
	return all
}
