package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

const (
	minMemoryMiB = 64
	maxMemoryMiB = 16 << 20 // 16 TiB
	memoryForms  = `write "2 GiB", "1.5 GiB", "2048 MiB" or 2048 (MiB); G, GB and GiB are the same, and so are M, MB and MiB`
)

var memoryPattern = regexp.MustCompile(`^([0-9]{1,12}(?:\.[0-9]{1,10})?) ?([A-Za-z]*)$`)

var memoryUnits = map[string]float64{"": 1, "m": 1, "mb": 1, "mib": 1, "g": 1024, "gb": 1024, "gib": 1024}

// ParseMemory reads a size of memory and gives it in MiB. An integer is MiB.
// A string is a number, which may have a fraction if the whole is a whole
// number of MiB, and a unit in any case: M, MB, MiB (2^20 bytes, also without
// a unit) or G, GB, GiB (2^30 bytes). Spaces around it, and one before the
// unit, are allowed. At least 64 MiB, at most 16 TiB.
func ParseMemory(v any) (mib int, err error) {
	return parseSize(v, "memory", memoryUnits, minMemoryMiB, "64 MiB")
}

// parseSize reads a size of something as ParseMemory does, with these units.
func parseSize(v any, what string, units map[string]float64, least float64, leastText string) (mib int, err error) {
	var size float64
	switch v := v.(type) {
	case int:
		size = float64(v)
	case int64:
		size = float64(v)
	case string:
		m := memoryPattern.FindStringSubmatch(strings.Trim(v, " \t"))
		unit, known := 0.0, false
		if m != nil {
			unit, known = units[strings.ToLower(m[2])]
		}
		if !known {
			return 0, fmt.Errorf("%q is no size of %s", shorten(v), what)
		}
		number, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no size of %s", shorten(v), what)
		}
		size = number * unit
	default:
		return 0, fmt.Errorf("a size is a string or an integer, and this is %s", kindOf(v))
	}
	if size != math.Trunc(size) {
		return 0, fmt.Errorf("%v is not a whole number of MiB", v)
	}
	if size < least || size > maxMemoryMiB {
		return 0, fmt.Errorf("%v is out of range: at least %s, at most 16 TiB", v, leastText)
	}
	return int(size), nil
}

const diskForms = `write "10 GiB", "1 TiB" or 10240 (MiB); G, GB and GiB are the same, and so are M, MB and MiB, and T, TB and TiB`

var diskUnits = map[string]float64{"": 1, "m": 1, "mb": 1, "mib": 1, "g": 1 << 10, "gb": 1 << 10, "gib": 1 << 10, "t": 1 << 20, "tb": 1 << 20, "tib": 1 << 20}

// disk is the size in MiB that the guest sees of its disk; 0 where none is given.
func disk(t *table) int {
	v, ok := t.value("disk")
	if !ok {
		return 0
	}
	mib, err := parseSize(v, "a disk", diskUnits, 1, "1 MiB")
	if err != nil {
		t.fault("disk", err.Error(), diskForms)
	}
	return mib
}
