package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// settle is how long VMs run before their memory is looked at.
const settle = 3 * time.Second

// qemus are the PIDs of the QEMUs that have the run's temporary directory, whose name is nobody else's, in their command line.
func (p *project) qemus() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && p.owns(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (p *project) owns(pid int) bool {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil { // it has ended
		return false
	}
	name, _, _ := bytes.Cut(command, []byte{0})
	return strings.HasPrefix(filepath.Base(string(name)), "qemu-system-") && bytes.Contains(command, []byte(filepath.Base(p.tmp)+"/"))
}

// pss is a look at the memory of all VMs, a few seconds after up.
func (w *warmRun) pss(ctx context.Context, to *[]int64) look {
	return func(u *upped) error {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pids, err := w.p.qemus()
		if err != nil {
			return err
		}
		if len(pids) != 8 {
			return fmt.Errorf("%s: %d QEMUs run, not 8", u.scene, len(pids))
		}
		var sum int64
		for _, pid := range pids {
			n, err := pssOf(pid)
			if err != nil {
				return err
			}
			sum += n
		}
		*to = append(*to, sum)
		return nil
	}
}

// pssOf is the process's proportional share of the memory it uses, in bytes.
func pssOf(pid int) (int64, error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New(path + ": no Pss")
}

// end takes down what an interrupted run has left, all scenes at once since mage allows 5 s after Ctrl-C, and then
// ends what is still there: raw QEMU, and one that was starting when its magefile was killed.
func (w *warmRun) end() error {
	errs := make([]error, len(w.scenes()))
	var all sync.WaitGroup
	for i, s := range w.scenes() {
		if _, err := os.Stat(s.dir); err != nil { // never used
			continue
		}
		all.Go(func() {
			if errs[i] = s.write(1, 0); errs[i] == nil {
				_, _, errs[i] = s.mage(context.Background(), "down")
			}
		})
	}
	all.Wait()
	return errors.Join(append(errs, w.p.endQEMUs())...)
}

func (p *project) endQEMUs() error {
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	for {
		pids, err := p.qemus()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			// A handle, and then a second look: the number may be another process's by now.
			if proc, err := os.FindProcess(pid); err == nil && p.owns(pid) {
				err = proc.Kill()
				if err != nil && !errors.Is(err, os.ErrProcessDone) {
					return err
				}
			}
		}
		select {
		case <-time.After(sshPoll):
		case <-ctx.Done():
			return fmt.Errorf("QEMUs %v do not end", pids)
		}
	}
}

// userHome is where the user's guests are kept; "" where that is not known.
func userHome() string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	return homeOr(filepath.Join(home, ".castra"))
}

// linkTree gives each file of src a second name below dst, or a copy where dst is on another file system. A src that is
// not there, and what is in dst already, is fine. Locks stay what they are.
func linkTree(src, dst string) error {
	if _, err := os.Stat(src); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(to, 0o700)
		case !e.Type().IsRegular() || filepath.Ext(path) == ".lock":
			return nil
		}
		if err := os.Link(path, to); err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
		return copyFile(path, to)
	})
}

func copyFile(src, dst string) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
