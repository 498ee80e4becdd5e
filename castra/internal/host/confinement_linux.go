package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Confined tells what the kernel keeps a process from.
func Confined(pid int) (Confinement, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Confinement{}, err
	}
	defer f.Close()
	c := Confinement{UID: -1}
	s := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch n, err := strconv.Atoi(fields[0]); {
		case err != nil:
		case name == "Uid":
			c.UID, _ = strconv.Atoi(fields[min(1, len(fields)-1)]) // the effective one
		case name == "Seccomp":
			c.Filtered = n == 2
		case name == "NoNewPrivs":
			c.NoNewPrivileges = n == 1
		}
	}
	return c, s.Err()
}
