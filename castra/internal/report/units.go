package report

import (
	"fmt"
	"strings"
	"time"
)

// Duration writes a time as people say it: "120 ms", "0.9 s", "5.3 s",
// "1 m 05 s", "2 h 03 m".
func Duration(d time.Duration) string {
	d = max(d, 0)
	tenths := int64(d.Round(100*time.Millisecond) / (100 * time.Millisecond))
	seconds := int64(d.Round(time.Second) / time.Second)
	switch {
	case d < 500*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case tenths < 600:
		return trimZero(float64(tenths)/10) + " s"
	case seconds < 3600:
		return fmt.Sprintf("%d m %02d s", seconds/60, seconds%60)
	default:
		return fmt.Sprintf("%d h %02d m", seconds/3600, seconds%3600/60)
	}
}

// Bytes writes a size in the unit that people read: "0 B", "12.5 KiB",
// "512 MiB", "1.2 GiB".
func Bytes(n int64) string {
	size, unit := float64(max(n, 0)), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for size >= 1023.95 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	if size >= 99.95 {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return trimZero(size) + " " + units[unit]
}

func trimZero(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }

func ms(n int64) string { return Duration(time.Duration(n) * time.Millisecond) }

// wholeSeconds is for times that are compared: "5 s of at most 300 s".
func wholeSeconds(n int64) string { return fmt.Sprintf("%d s", (n+500)/1000) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
