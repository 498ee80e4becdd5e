package qemu

import (
	"os"
	"os/exec"
)

// Package is what each package manager calls the package that holds a program.
type Package struct{ Apt, Dnf, Pacman, Brew string }

// Install is the command that installs the package with the package manager of
// this computer; where none is found, that of each.
func (p Package) Install() string {
	sudo := "sudo "
	if os.Geteuid() == 0 {
		sudo = ""
	}
	commands := []struct{ manager, system, line string }{
		{"apt-get", "Debian and Ubuntu", sudo + "apt-get install " + p.Apt},
		{"dnf", "Fedora", sudo + "dnf install " + p.Dnf},
		{"pacman", "Arch", sudo + "pacman -S " + p.Pacman},
		{"brew", "macOS", "brew install " + p.Brew},
	}
	all := ""
	for _, c := range commands {
		if _, err := exec.LookPath(c.manager); err == nil {
			return c.line
		}
		if all != "" {
			all += "; "
		}
		all += c.system + ": " + c.line
	}
	return all
}
