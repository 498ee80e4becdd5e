package fetch

import "time"

// Limits bound what a server may cost. A zero field means its default; there
// is no limit on the time of a whole download.
type Limits struct {
	Connect time.Duration // name lookup and TCP connection together; 30 s
	TLS     time.Duration // TLS handshake; 15 s
	Header  time.Duration // from the request to the end of the response's header, and a proxy's answer; 30 s
	Stall   time.Duration // without one byte of the body; 30 s

	// A body that brings less than SlowRate bytes a second, 1024, on average
	// over SlowWindow, 5 min, is too slow.
	SlowRate   int64
	SlowWindow time.Duration

	Redirects int   // hops; 10
	Bytes     int64 // of a body whose size nobody knows; 64 GiB

	// Retries is how often it is tried again without progress in between; 5,
	// and never below zero. Before the first there is a pause of Backoff, 1 s,
	// which doubles up to MaxBackoff, 30 s; a server's Retry-After makes it
	// longer, up to RetryAfter, 1 min.
	Retries             int
	Backoff, MaxBackoff time.Duration
	RetryAfter          time.Duration
}

func (l Limits) withDefaults() Limits {
	fill(&l.Connect, 30*time.Second)
	fill(&l.TLS, 15*time.Second)
	fill(&l.Header, 30*time.Second)
	fill(&l.Stall, 30*time.Second)
	fill(&l.SlowRate, 1024)
	fill(&l.SlowWindow, 5*time.Minute)
	fill(&l.Redirects, 10)
	fill(&l.Bytes, 64<<30)
	fill(&l.Retries, 5)
	fill(&l.Backoff, time.Second)
	fill(&l.MaxBackoff, 30*time.Second)
	fill(&l.RetryAfter, time.Minute)
	return l
}

func fill[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
