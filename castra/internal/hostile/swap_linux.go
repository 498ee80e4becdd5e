package hostile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const envSwap = "CASTRA_TEST_SWAP"

// init makes of the re-executed test binary the process that swaps.
func init() {
	if os.Getenv(envSwap) == "" {
		return
	}
	orders := json.NewDecoder(bufio.NewReader(os.Stdin))
	var pairs [][2]string
	for orders.Decode(&pairs) == nil {
		swapUntil(orders, pairs)
	}
	os.Exit(0)
}

// swapUntil exchanges the names of each pair until the next order comes.
func swapUntil(orders *json.Decoder, pairs [][2]string) {
	var stop atomic.Bool
	ended := make(chan int)
	go func() {
		rounds := 0
		for !stop.Load() {
			for _, p := range pairs {
				for range 2 { // there and back
					_ = unix.Renameat2(unix.AT_FDCWD, p[0], unix.AT_FDCWD, p[1], unix.RENAME_EXCHANGE)
				}
			}
			if rounds++; rounds == 1 {
				fmt.Println("on")
			}
		}
		ended <- rounds
	}()
	var word string
	_ = orders.Decode(&word)
	stop.Store(true)
	fmt.Println(<-ended)
}

// Swapper is a process that swaps directories and symlinks.
type Swapper struct {
	t      testing.TB
	orders *json.Encoder
	says   *bufio.Scanner
	Rounds int // swaps so far
}

// NewSwapper starts one, until the test ends.
func NewSwapper(t testing.TB) *Swapper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envSwap+"=1")
	in, err := cmd.StdinPipe()
	if err == nil {
		cmd.Stderr = os.Stderr
		var out interface{ Read([]byte) (int, error) }
		if out, err = cmd.StdoutPipe(); err == nil {
			if err = cmd.Start(); err == nil {
				t.Cleanup(func() {
					in.Close()
					_ = cmd.Wait()
				})
				return &Swapper{t: t, orders: json.NewEncoder(in), says: bufio.NewScanner(out)}
			}
		}
	}
	t.Fatal(err)
	return nil
}

// During swaps while f runs: each of the paths with a symlink that is kept at
// the side and leads to one of the targets.
func (s *Swapper) During(g *Ground, r *rand.Rand, paths, targets []string, f func()) {
	s.t.Helper()
	var pairs [][2]string
	for n, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		link := filepath.Join(g.Side, fmt.Sprint(n))
		_ = os.Remove(link)
		g.must(s.t, os.Symlink(targets[r.IntN(len(targets))], link))
		pairs = append(pairs, [2]string{path, link})
	}
	if pairs == nil {
		f()
		return
	}
	g.must(s.t, s.orders.Encode(pairs))
	s.line()
	f()
	g.must(s.t, s.orders.Encode("stop"))
	n := 0
	_, _ = fmt.Sscan(s.line(), &n)
	s.Rounds += n * len(pairs) * 2
}

func (s *Swapper) line() string {
	s.t.Helper()
	if !s.says.Scan() {
		s.t.Fatal("the process that swaps has ended")
	}
	return s.says.Text()
}
