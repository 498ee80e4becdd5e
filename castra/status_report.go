package castra

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"castra.example/castra/castra/internal/report"
)

// rows is the table that `mage status` prints. Forwards stand below each other,
// and those on loopback without their address, so that it fits 80 columns.
func (s *ProjectStatus) rows() (header []string, rows [][]string) {
	header = []string{"vm", "state", "pid", "up", "accel", "ssh", "forwards", "health"}
	for _, vm := range s.VMs {
		pid, up := "", ""
		if vm.PID != 0 {
			pid = fmt.Sprint(vm.PID)
			up = uptime(vm.UptimeSecs)
		}
		var others []string
		for _, f := range vm.Forwards {
			if !strings.HasSuffix(vm.SSH, fmt.Sprintf(":%d", f.HostPort)) {
				others = append(others, f.short())
			}
		}
		rows = append(rows, []string{vm.Name, vm.State, pid, up, vm.Accelerator, vm.SSH, strings.Join(others, "\n"), vm.Health})
	}
	return header, rows
}

// uptime is short at every age: 12s, 3m, 5h, 2d.
func uptime(secs int64) string {
	switch d := time.Duration(secs) * time.Second; {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", secs)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// short leaves out what is most often the case.
func (f Forward) short() string {
	host, protocol := "", ""
	if f.HostIP != loopback {
		host = f.HostIP
	}
	if f.Protocol != "tcp" {
		protocol = "/" + f.Protocol
	}
	return fmt.Sprintf("%s:%d->%d%s", host, f.HostPort, f.GuestPort, protocol)
}

// String names the project for the line above the table.
func (s *ProjectStatus) String() string {
	name := s.Project
	if name == "" {
		name = s.Workspace
	}
	return fmt.Sprintf("%s (%s)", name, shortHome(s.Root))
}

// StatusReport is the status of several workspaces. Its JSON form is that of
// `mage status -json`: the ProjectStatus itself where one project was asked for.
type StatusReport struct {
	Workspaces []*ProjectStatus  `json:"workspaces"`
	Broken     []BrokenWorkspace `json:"broken"`
	one        bool
}

// MarshalJSON gives one project without the list around it.
func (r *StatusReport) MarshalJSON() ([]byte, error) {
	if r.one {
		return json.Marshal(r.Workspaces[0])
	}
	type all StatusReport
	return json.Marshal((*all)(r))
}

// write prints the report for people: a header each with the workspace's ID.
func (r *StatusReport) write(w io.Writer) error {
	if r.one {
		return r.Workspaces[0].write(w)
	}
	for i, s := range r.Workspaces {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "workspace %s (%s)\n", s.Workspace, shortHome(s.Root))
		if err := s.table(w); err != nil {
			return err
		}
	}
	return writeBroken(w, len(r.Workspaces), r.Broken)
}

// writeBroken prints a line for each directory that is no workspace and, where
// nothing is to be told, says so.
func writeBroken(w io.Writer, workspaces int, broken []BrokenWorkspace) error {
	if workspaces == 0 {
		fmt.Fprintln(w, "no castra.toml in reach, and no workspace is active")
	}
	for _, b := range broken {
		fmt.Fprintf(w, "%s: %s\n", shortHome(b.Root), report.Sanitize(b.Problem))
	}
	return nil
}

// shortHome writes the home directory as ~.
func shortHome(path string) string {
	if home, err := os.UserHomeDir(); err == nil && home != "" {
		if rest, ok := strings.CutPrefix(path, home+string(os.PathSeparator)); ok {
			return "~/" + rest
		}
	}
	return path
}

// write prints the status for people.
func (s *ProjectStatus) write(w io.Writer) error {
	fmt.Fprintln(w, s)
	return s.table(w)
}

func (s *ProjectStatus) table(w io.Writer) error {
	if s.Problem != "" {
		fmt.Fprintln(w, report.Sanitize(s.Problem))
	}
	header, rows := s.rows()
	if err := report.Table(w, header, rows); err != nil {
		return err
	}
	for _, line := range s.starts() {
		fmt.Fprintln(w, line)
	}
	for _, line := range s.weaknesses() {
		fmt.Fprintln(w, report.Sanitize(line))
	}
	for _, vm := range s.VMs {
		if vm.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", vm.Name, report.Sanitize(vm.Problem))
		}
	}
	return nil
}

// starts tells how the VMs that run were started, those that were alike together.
func (s *ProjectStatus) starts() []string {
	var how []string
	vms := map[string][]string{}
	for _, vm := range s.VMs {
		if vm.Start == "" {
			continue
		}
		text := vm.Start + " start"
		if vm.StartReason != "" {
			text += ": " + vm.StartReason
		}
		if len(vms[text]) == 0 {
			how = append(how, text)
		}
		vms[text] = append(vms[text], vm.Name)
	}
	for i, text := range how {
		how[i] = report.Sanitize(strings.Join(vms[text], ", ") + ": " + text)
	}
	return how
}
