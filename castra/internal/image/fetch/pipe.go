package fetch

import "hash"

// The size in bytes and the number of the buffers between network and digest.
const (
	bufferSize  = 256 << 10
	bufferCount = 4
)

// pipe feeds a digest from a goroutine of its own, so that the network is read
// while it computes. Buffers go round: memory does not grow with the body, and
// a digest that lags holds up the reading.
type pipe struct {
	free, full chan []byte
	done       chan struct{}
}

// newBuffers makes the buffers that the pipes of one download share.
func newBuffers() chan []byte {
	free := make(chan []byte, bufferCount)
	for range bufferCount {
		free <- make([]byte, bufferSize)
	}
	return free
}

func startPipe(sum hash.Hash, free chan []byte) *pipe {
	p := &pipe{free: free, full: make(chan []byte, bufferCount), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for b := range p.full {
			sum.Write(b)
			p.free <- b[:cap(b)]
		}
	}()
	return p
}

// finish waits until all that was put into full is in the digest.
func (p *pipe) finish() {
	close(p.full)
	<-p.done
}
