package guest

import (
	"io"
	"sync"
)

// counter tells Client.Progress how far one transfer is.
type counter struct {
	mu     sync.Mutex
	report func(done int64)
	done   int64
}

func (c *Client) counter() *counter { return &counter{report: c.Progress} }

// reader counts what is read of r.
func (n *counter) reader(r io.Reader) io.Reader { return &countedReader{r, n} }

func (n *counter) add(bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done += int64(bytes)
	if n.report != nil && bytes > 0 {
		n.report(n.done)
	}
}

// end keeps a reader that was left behind from reporting.
func (n *counter) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.report = nil
}

type countedReader struct {
	io.Reader
	counter *counter
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.counter.add(n)
	return n, err
}
