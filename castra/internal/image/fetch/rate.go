package fetch

import "time"

// slots is into how many parts the window of a rate is divided.
const slots = 10

// rate tells when a body is too slow on average over a window that slides.
// Only time in which bytes are waited for counts.
type rate struct {
	limit  int64
	window time.Duration

	active, next time.Duration // waited so far; when the next sample is due
	bytes        int64
	samples      []int64 // bytes at the last slots+1 samples, oldest first
}

func newRate(l Limits) *rate {
	return &rate{limit: l.SlowRate, window: l.SlowWindow, samples: []int64{0}, next: l.SlowWindow / slots}
}

// add counts n bytes that were waited for.
func (r *rate) add(n int64, waited time.Duration) error {
	r.active += waited
	r.bytes += n
	for ; r.active >= r.next; r.next += r.window / slots {
		r.samples = append(r.samples, r.bytes)
		if len(r.samples) <= slots {
			continue
		}
		got := r.bytes - r.samples[0]
		r.samples = append(r.samples[:0], r.samples[1:]...)
		if float64(got) < float64(r.limit)*r.window.Seconds() {
			return &SlowError{Bytes: got, Window: r.window}
		}
	}
	return nil
}
