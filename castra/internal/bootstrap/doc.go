// Package bootstrap runs the user's script in a guest that answers SSH:
// wait-handshake, connect, transfer, apply, verify. It reports each step as an
// event and leaves a log of each run.
//
// Values of the environment are secrets: they travel on the standard input of
// the encrypted channel, and never stand in a command line, an event, a log or
// an error.
package bootstrap
