package qemutest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// options is what the fake QEMU understands of its command line.
type options struct {
	name, uuid, pidfile string
	monitor             string // path of the QMP socket
	serial, serialID    string // path of the serial log, and the name of its chardev
	serialAppend        bool
	sets                map[string]int // descriptors that were passed, one a set
	passed              *os.File       // the one that serial is
	netdev              string         // as given, for messages
	forwards            []rule
	nodes               []node
	overlays            []node // images opened for writing
	seed                string
	flashNames          [2]string // nodes of the firmware's code and variables
	flash               [2]*node
	accelerator         string // "" for none given
	stopped             bool   // -S
	sandbox             bool   // -sandbox on
	incoming            bool   // -incoming defer
	shape               shape
	backend             string   // id of the object that is the guest's memory, "" for none
	objects             []memory // of -object
}

// rule is one hostfwd.
type rule struct {
	text      string // as given
	protocol  string
	host      string
	hostPort  int
	guestPort int
}

func (r rule) address() string { return net.JoinHostPort(r.host, strconv.Itoa(r.hostPort)) }

// parseOptions reads castra's command lines. What has no meaning for a fake
// (kernel, display, ...) is skipped.
func parseOptions(args []string) (options, error) {
	o := options{shape: plainShape(), sets: map[string]int{}}
	chardevs := map[string]map[string]string{}
	monitorID := ""
	for i := 0; i < len(args); i++ {
		flag := strings.TrimPrefix(args[i], "-")
		if flag == "S" || flag == "nodefaults" || flag == "no-user-config" || flag == "no-reboot" || flag == "no-shutdown" {
			o.stopped = o.stopped || flag == "S"
			continue
		}
		if i++; i >= len(args) {
			return o, fmt.Errorf("-%s: requires an argument", flag)
		}
		value, fields, err := args[i], splitOption(args[i]), error(nil)
		switch flag {
		case "name":
			o.name = fields["guest"] + fields[""]
		case "uuid":
			o.uuid = value
		case "pidfile":
			o.pidfile = value
		case "add-fd":
			err = o.addDescriptor(fields)
		case "chardev":
			chardevs[fields["id"]] = fields
		case "mon":
			monitorID = fields["chardev"] + fields[""]
		case "netdev":
			o.netdev = value
			o.forwards, err = parseRules(value)
		case "blockdev":
			err = o.addNode(value)
		default:
			err = o.addHardware(flag, value)
		}
		if b := (bare{}); errors.As(err, &b) {
			return o, b.error
		}
		if err != nil {
			return o, fmt.Errorf("-%s %s: %w", flag, value, err)
		}
	}
	o.monitor = chardevs[monitorID]["path"]
	for _, c := range chardevs {
		if c[""] == "file" {
			o.serial, o.serialID, o.serialAppend = c["path"], c["id"], c["append"] == "on"
		}
	}
	for _, check := range []func() error{o.openSerial, o.checkHardware, o.checkMemory, o.assign} {
		if err := check(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// splitOption reads "kind,key=value,..."; a doubled comma stands for itself.
// The kind is under "".
func splitOption(s string) map[string]string {
	fields := map[string]string{}
	s = strings.ReplaceAll(s, ",,", "\x00")
	for part := range strings.SplitSeq(s, ",") {
		part = strings.ReplaceAll(part, "\x00", ",")
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			key, value = "", part
		}
		fields[key] = value
	}
	return fields
}

func parseRules(netdev string) ([]rule, error) {
	var rules []rule
	for part := range strings.SplitSeq(netdev, ",") {
		text, ok := strings.CutPrefix(part, "hostfwd=")
		if !ok {
			continue
		}
		r := rule{text: text}
		host, guest, ok := strings.Cut(text, "-:")
		fields := strings.Split(host, ":")
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("Invalid host forwarding rule '%s'", text) //nolint:staticcheck // QEMU's words
		}
		var err1, err2 error
		r.protocol, r.host = fields[0], fields[1]
		r.hostPort, err1 = strconv.Atoi(fields[2])
		r.guestPort, err2 = strconv.Atoi(guest)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("Invalid host forwarding rule '%s'", text) //nolint:staticcheck // QEMU's words
		}
		rules = append(rules, r)
	}
	return rules, nil
}
