package warm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The program runs on this computer's kernel as in a guest's; as a user who may
// not set the clock, so it gets no further than that.
func TestWakingProgram(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("there is none for " + runtime.GOARCH)
	}
	program, err := executable()
	require.NoError(t, err)
	require.Less(t, len(program), 600)
	file, err := elf.NewFile(bytes.NewReader(program))
	require.NoError(t, err)
	require.Equal(t, elf.ET_EXEC, file.Type)
	require.Len(t, file.Progs, 1)
	require.Equal(t, uint64(len(program)), file.Progs[0].Filesz)

	dir, err := os.MkdirTemp("", "castra-wake-") // t.TempDir is below a directory that only its owner may enter
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "wake")
	require.NoError(t, os.WriteFile(path, program, 0o755))
	var whole bytes.Buffer
	now := time.Now()
	require.NoError(t, binary.Write(&whole, binary.LittleEndian, message{Sec: now.Unix(), Nsec: int64(now.Nanosecond()), Size: 256}))
	require.Equal(t, 352, whole.Len())
	for name, c := range map[string]struct {
		input  []byte
		status int
	}{
		"nothing":    {nil, 1},
		"a part":     {whole.Bytes()[:351], 1},
		"all of it":  {whole.Bytes(), 2},
		"and a rest": {append(bytes.Clone(whole.Bytes()), 1, 2, 3), 2},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), path)
			cmd.Stdin = bytes.NewReader(c.input)
			if os.Geteuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			}
			err := cmd.Run()
			var exit *exec.ExitError
			require.True(t, errors.As(err, &exit), "%v", err)
			require.Equal(t, c.status, exit.ExitCode())
		})
	}
}

// The time is that of the sending, not that of the asking.
func TestMessageIsFresh(t *testing.T) {
	r := &lateReader{m: message{HostLen: 5}}
	time.Sleep(20 * time.Millisecond)
	before := time.Now()
	var all bytes.Buffer
	_, err := all.ReadFrom(r)
	require.NoError(t, err)
	var m message
	require.NoError(t, binary.Read(&all, binary.LittleEndian, &m))
	require.False(t, time.Unix(m.Sec, m.Nsec).Before(before.Truncate(time.Nanosecond)))
	require.Equal(t, int64(5), m.HostLen)
}
