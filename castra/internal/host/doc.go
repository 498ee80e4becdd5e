// Package host tells facts about this computer: its boot, its memory and
// disk, who holds a port, whether a process has ended. One file an operating
// system; a fact that cannot be had there is reported as unknown, never guessed.
package host
