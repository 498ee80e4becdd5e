package sweep

import "time"

const (
	bound = 30 * time.Second
	poll  = 5 * time.Millisecond
)
