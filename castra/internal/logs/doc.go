// Package logs reads the end of log files, and follows them, without trusting
// them: guests and QEMU write them, so they may be huge, hold anything, or be
// no file at all.
package logs
