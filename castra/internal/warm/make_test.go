package warm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

func bootID(t *testing.T) string {
	t.Helper()
	if host.BootID() == "" {
		t.Skip("this system does not name its boots")
	}
	return host.BootID()
}

func TestMakeFails(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "ram", Err: unix.ENOSPC}
	for name, c := range map[string]struct {
		fill func(dir string) error
		want string
	}{
		"full disk": {func(dir string) error { return errors.Join(fillRAM(dir), full) }, "no space left"},
		"nothing":   {func(string) error { return nil }, "lists the files"},
		"no state":  {func(dir string) error { return errors.Join(fillRAM(dir), os.Remove(filepath.Join(dir, StateName))) }, "lists the files"},
		"too much": {func(dir string) error {
			return errors.Join(fillRAM(dir), os.WriteFile(filepath.Join(dir, "more"), nil, 0o600))
		}, "lists the files"},
		"symlink":   {func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, DiskName)) }, "not a regular file"},
		"directory": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, DiskName, "x"), 0o700) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			_, err := s.Make(t.Context(), some(), Meta{}, c.fill)
			require.ErrorContains(t, err, c.want)
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, s.path(some().Key()), failed.Path)
			require.NotEmpty(t, failed.Hint())
			requireNames(t, s)
		})
	}
	st, err := os.Stat("/etc/passwd")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), st.Mode().Perm())
}

func TestMakeCancelled(t *testing.T) {
	for _, after := range []func(string) error{fillRAM, func(string) error { return context.Canceled }} {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.Make(ctx, some(), Meta{}, func(dir string) error {
			cancel()
			return after(dir)
		})
		require.ErrorIs(t, err, context.Canceled)
		requireNames(t, s)
	}
}

// Two makers: the first one's stays, the other is told of it.
func TestMakeTwice(t *testing.T) {
	s := open(t)
	const makers = 8
	var ready, all sync.WaitGroup
	ready.Add(makers)
	infos := make([]Info, makers)
	for n := range makers {
		all.Go(func() {
			info, err := s.Make(t.Context(), some(), Meta{}, func(dir string) error {
				ready.Done()
				ready.Wait() // nobody is swept by another
				return fillRAM(dir)
			})
			if err != nil {
				t.Error(err)
			}
			infos[n] = info
		})
	}
	all.Wait()
	requireNames(t, s, some().Key())
	for _, info := range infos {
		require.Equal(t, some().Key(), info.Key)
		require.True(t, info.RAM)
		require.True(t, info.Made.Equal(infos[0].Made))
	}
	left, err := s.Leftovers()
	require.NoError(t, err)
	require.Empty(t, left)
}

// A maker that is killed, wherever, leaves no template or a whole one, and
// nothing that the next does not sweep.
func TestMakerKilled(t *testing.T) {
	for _, at := range []string{"unlocked", "staged", "in fill", "filled", "digested", "described", "renamed"} {
		t.Run(at, func(t *testing.T) {
			s := open(t)
			kill(t, s, at)
			found, err := s.Find(t.Context(), some())
			left, leftErr := s.Leftovers()
			require.NoError(t, leftErr)
			if at == "renamed" {
				require.NoError(t, err)
				found.Release()
				require.Empty(t, left)
				require.NoError(t, s.Sweep())
				require.NoFileExists(t, filepath.Join(found.Dir, lockName))
				return
			}
			require.EqualError(t, err, "no warm template: no template yet")
			require.Len(t, left, 1)
			require.NoError(t, s.Sweep())
			requireNames(t, s)

			kill(t, s, at)
			makeIt(t, s, some(), fillRAM)
			requireNames(t, s, some().Key())
		})
	}
}

// One that lives is not swept, also when it is another process.
func TestSweepLeavesMakers(t *testing.T) {
	s := open(t)
	makeIt(t, s, some(), func(dir string) error {
		require.NoError(t, s.Sweep())
		left, err := s.Leftovers()
		require.NoError(t, err)
		require.Empty(t, left)
		removed, kept, err := s.Remove(filepath.Base(dir))
		require.NoError(t, err)
		require.Empty(t, removed)
		require.Len(t, kept, 1)
		require.DirExists(t, dir)
		return fillRAM(dir)
	})
}

const killEnv, killDir = "CASTRA_WARM_TEST_KILL", "CASTRA_WARM_TEST_HOME"

func kill(t *testing.T, s *Store, at string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMakerProcess$")
	cmd.Env = append(os.Environ(), killEnv+"="+at, killDir+"="+filepath.Dir(s.dir))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%s", out)
}

// TestMakerProcess is the maker that is killed.
func TestMakerProcess(t *testing.T) {
	at := os.Getenv(killEnv)
	if at == "" {
		t.Skip("only as another test's process")
	}
	step = func(name string) {
		if name == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s, err := Open(os.Getenv(killDir))
	require.NoError(t, err)
	_, err = s.Make(t.Context(), some(), Meta{}, func(dir string) error {
		err := fillRAM(dir)
		step("in fill")
		return err
	})
	require.NoError(t, err)
}

// Makers, finders and removers at once: what is found is whole, and stays as
// long as it is held.
func TestAllAtOnce(t *testing.T) {
	s := open(t)
	var work sync.WaitGroup
	var found atomic.Int64
	end := time.Now().Add(time.Second)
	loop := func(f func() error) {
		work.Go(func() {
			for time.Now().Before(end) {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 3 {
		i := owned(fmt.Sprint(n))
		loop(func() error {
			_, err := s.Make(t.Context(), i, Meta{}, fillRAM)
			return err
		})
		for range 2 {
			loop(func() error {
				tpl, err := s.Find(t.Context(), i)
				if miss := new(MissError); errors.As(err, &miss) {
					return nil
				}
				if err != nil {
					return err
				}
				defer tpl.Release()
				found.Add(1)
				return tpl.verify(t.Context(), false)
			})
		}
	}
	loop(func() error {
		_, err := s.Evict(0)
		return err
	})
	loop(func() error {
		_, _, err := s.Remove(owned("0").Key(), owned("1").Key())
		return err
	})
	work.Wait()
	require.Positive(t, found.Load())
	left, err := s.Leftovers()
	require.NoError(t, err)
	require.Empty(t, left)
}
