package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// besideName is the name of the file beside a script that says how its guest
// is reached, and what the script is given.
const besideName = "bootstrap.toml"

// besidePlaces are the tables of its keys.
var besidePlaces = map[string]string{"user": "[ssh]", "host": "[ssh]", "port": "[ssh]", "identity": "[ssh]"}

// beside is what such a file gives; the zero value where there is none.
type beside struct {
	ssh SSH
	env map[string]string
}

// besideOf reads the bootstrap.toml beside a script, once for all VMs.
func (l *loader) besideOf(script string) beside {
	dir := filepath.Dir(script)
	if b, ok := l.beside[dir]; ok {
		return b
	}
	file := filepath.Join(dir, besideName)
	_, t, err := parse(file, dir, l.f.faults)
	var found Faults
	var b beside
	switch {
	case err == nil:
		t.f.places = besidePlaces
		b.ssh = l.ssh(t.sub("ssh"))
		b.env = env(t.secrets("env"))
		t.done()
	case errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &found):
		for _, e := range found {
			l.f.take(e)
		}
	default:
		l.f.take(&Error{File: file, Problem: reason(err, "it"), Help: "make it readable, or remove it"})
	}
	l.beside[dir] = b
	return b
}

// merge puts what the bootstrap.toml beside the VM's script says over castra.toml.
func (l *loader) merge(vm *VM) {
	if vm.Bootstrap.Script == "" || l.recorded {
		return
	}
	b := l.besideOf(vm.Bootstrap.Script)
	vm.SSH = SSH{
		User: cmp.Or(b.ssh.User, vm.SSH.User), Host: cmp.Or(b.ssh.Host, vm.SSH.Host),
		Port: cmp.Or(b.ssh.Port, vm.SSH.Port), Identity: cmp.Or(b.ssh.Identity, vm.SSH.Identity),
	}
	maps.Copy(vm.Bootstrap.Env, b.env)
}

var (
	userPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	hostPattern = lazily(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// ssh reads what is given; the rest is zero.
func (l *loader) ssh(t *table) SSH {
	var s SSH
	if user, ok := t.str("user"); ok {
		if s.User = user; !userPattern.MatchString(user) {
			t.fault("user", fmt.Sprintf("%q is no name of a user", shorten(user)), "write a login name of the guest: letters, digits, _, . and -, at most 32")
		}
	}
	if host, ok := t.str("host"); ok {
		s.Host = host
		if ip, err := netip.ParseAddr(host); !hostPattern().MatchString(host) && (err != nil || ip.Zone() != "") {
			t.fault("host", fmt.Sprintf("%q is no name or address of a host", shorten(host)), "write a host name or an IP address, or leave it out to go by the forward")
		}
	}
	s.Port = t.integer("port", 0, 1, maxPort)
	s.Identity = l.file(t, "identity")
	t.done()
	return s
}

// env reads variables; faulty ones are left out.
func env(t *table) map[string]string {
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(t.m)) {
		switch value, _ := t.str(name); {
		case !envPattern.MatchString(name):
			t.fault(name, "it is no name of a variable", "write letters, digits and _, with no digit first")
		case strings.HasPrefix(name, "CASTRA_"):
			t.fault(name, "names that begin with CASTRA_ are Castra's own", "give the variable another name")
		default:
			all[name] = value
		}
	}
	return all
}
