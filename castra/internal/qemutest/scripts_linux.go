package qemutest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
)

const shutdownEvent = `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}, "timestamp": {"seconds": 1, "microseconds": 1}}` + "\r\n"

// openings are what a Stranger says to whom connects to it, by the name of the
// script. It then says nothing more.
var openings = map[string]func(w io.Writer){
	"closes":         nil,
	"silent":         func(io.Writer) {},
	"mail":           func(w io.Writer) { fmt.Fprint(w, "220 mail.example ESMTP\r\n") },
	"array":          func(w io.Writer) { fmt.Fprint(w, "[1,2,3]\r\n") },
	"null":           func(w io.Writer) { fmt.Fprint(w, "null\r\n") },
	"NUL":            func(w io.Writer) { fmt.Fprint(w, strings.Repeat("\x00", 4096)+"\n") },
	"a long line":    func(w io.Writer) { fmt.Fprint(w, strings.Repeat("x", 10<<20)) },
	"deep":           func(w io.Writer) { fmt.Fprint(w, strings.Repeat(`{"QMP":`, 9000)+"\n") },
	"half a banner":  func(w io.Writer) { fmt.Fprint(w, qmpGreeting[:40]) },
	"banner alone":   func(w io.Writer) { fmt.Fprint(w, qmpGreeting+"\r\n") },
	"odd version":    func(w io.Writer) { fmt.Fprint(w, `{"QMP": {"version": "seven"}}`+"\n") },
	"events":         func(w io.Writer) { fmt.Fprint(w, strings.Repeat(shutdownEvent, 100_000)) },
	"reply first":    func(w io.Writer) { fmt.Fprint(w, `{"return": {}}`+"\r\n") },
	"refusal first":  func(w io.Writer) { fmt.Fprint(w, `{"error": {"class": "GenericError", "desc": "no"}}`+"\r\n") },
	"escape":         func(w io.Writer) { fmt.Fprint(w, "\x1b]0;owned\a\x1b[2J\n") },
	"banner, events": func(w io.Writer) { fmt.Fprint(w, qmpGreeting+"\r\n"+strings.Repeat(shutdownEvent, 100_000)) },
}

func (s *stranger) talk(conn net.Conn, script, uuid string) {
	if open, ok := openings[script]; ok {
		if open != nil {
			open(conn)
			_, _ = io.Copy(io.Discard, conn)
		}
		return
	}
	fmt.Fprint(conn, qmpGreeting+"\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var c command
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			return
		}
		a := answer{Return: map[string]any{}, ID: c.ID}
		switch c.Execute {
		case "qmp_capabilities":
		case "query-uuid":
			a.Return = map[string]any{"UUID": uuid}
		case "query-status":
			a.Return = map[string]any{"status": "running", "running": true, "singlestep": false}
		default: // what would change a VM
			s.orders <- c.Execute
		}
		reply, err := json.Marshal(a)
		if err != nil {
			return
		}
		if script == "wrong id" && c.Execute != "qmp_capabilities" {
			reply = []byte(strings.ReplaceAll(string(reply), "castra-", "castra-9"))
		}
		fmt.Fprintf(conn, "%s\r\n", reply)
	}
}

// Scripts names the ways in which a Stranger talks that is no QEMU, sorted.
func Scripts() []string { return slices.Sorted(maps.Keys(openings)) }
