package image

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const envEnsure = "CASTRA_TEST_ENSURE"

// ensuring is what a re-executed test binary is to do.
type ensuring struct {
	Home   string
	Source Source
}

// init makes of the re-executed test binary a process that has an image; it
// says "half" when it has downloaded half of it, and "waiting".
func init() {
	var e ensuring
	if json.Unmarshal([]byte(os.Getenv(envEnsure)), &e) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	half := false
	d, err := Ensure(ctx, e.Home, e.Source, Report{
		Progress: func(phase string, done, total int64) {
			if phase == "downloading" && !half && 2*done >= total {
				half = true
				fmt.Println("half")
			}
		},
		Waiting: func(string) { fmt.Println("waiting") },
	})
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	fmt.Println("done", d.Downloaded, d.Path)
	os.Exit(0)
}

// crowd runs n processes that want one image, hears each line that one of them
// says, and gives what they said at last; "" of one that was killed.
func crowd(t *testing.T, n int, e ensuring, hear func(cmd *exec.Cmd, line string)) []string {
	task, err := json.Marshal(e)
	require.NoError(t, err)
	last := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envEnsure+"="+string(task))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		wg.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				hear(cmd, lines.Text())
				last[i] = lines.Text()
			}
			if cmd.Wait() != nil && !strings.HasPrefix(last[i], "failed") {
				last[i] = ""
			}
		})
	}
	wg.Wait()
	return last
}

// Fault D5, failure bank 23.
func TestManyProcessesOneTransfer(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 2<<20)
	s := o.put("disk.img", body)
	o.slowDown(50 * time.Millisecond) // 32 pieces
	var mu sync.Mutex
	waiting := 0
	last := crowd(t, 20, ensuring{home, s}, func(_ *exec.Cmd, line string) {
		mu.Lock()
		defer mu.Unlock()
		if line == "waiting" {
			waiting++
		}
	})
	downloaded := 0
	for _, said := range last {
		require.True(t, strings.HasPrefix(said, "done "), said)
		if strings.HasPrefix(said, "done true ") {
			downloaded++
		}
	}
	require.Equal(t, 1, downloaded)
	require.Positive(t, waiting)
	gets, sent := o.counts()
	require.Equal(t, 1, gets)
	require.EqualValues(t, len(body), sent)
	d, ok := Find(home, s)
	require.True(t, ok)
	requireDisk(t, body, d)
}

// Failure bank 23 and 19: one is killed at half of it.
func TestKilledAtHalf(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 4<<20)
	s := o.put("disk.img", body)
	o.slowDown(30 * time.Millisecond) // 64 pieces
	var once sync.Once
	last := crowd(t, 6, ensuring{home, s}, func(cmd *exec.Cmd, line string) {
		if line == "half" {
			once.Do(func() { _ = cmd.Process.Kill() })
		}
	})
	killed, downloaded := 0, 0
	for _, said := range last {
		if said == "" {
			killed++
			continue
		}
		require.True(t, strings.HasPrefix(said, "done "), said)
		if strings.HasPrefix(said, "done true ") {
			downloaded++
		}
	}
	require.Equal(t, 1, killed)
	require.Equal(t, 1, downloaded)
	gets, sent := o.counts()
	require.Equal(t, 2, gets)
	require.Len(t, o.ranges, 1, "the part is taken up")
	require.Less(t, sent, int64(len(body))*3/2)
	d, ok := Find(home, s)
	require.True(t, ok)
	requireDisk(t, body, d)
}
