package bench

import (
	"cmp"
	"runtime"
	"slices"
)

func cores() int { return runtime.NumCPU() }

func median[T cmp.Ordered](v []T) T {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func least[T cmp.Ordered](v []T) T { return slices.Min(v) }
func most[T cmp.Ordered](v []T) T  { return slices.Max(v) }
