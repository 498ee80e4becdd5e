// Package workspace keeps the state root of one project: every path in it
// (Layout), who owns it, the lock that writers take, the records that tell a
// later command what an earlier one did, and what may be removed.
//
// Nothing in a workspace is trusted to be whole: a command may have been
// killed at any point. Records are written beside and renamed, a lock is free
// when its holder is gone, and only names on the list of this package are ever
// removed.
package workspace
