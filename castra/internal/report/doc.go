// Package report turns events into what is read: NewText for people, NewJSON
// for programs, History for one that is long past; and Table for results such
// as status and ports.
//
// Whatever a guest, an image or another program said goes through Sanitize
// before it reaches a terminal.
package report
