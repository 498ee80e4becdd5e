package config

import "strings"

// nearest is the known name that key was most likely meant to be; "" where
// none is close.
func nearest(key string, known []string) string {
	best, least := "", 3
	folded := strings.ToLower(strings.NewReplacer("-", "_", " ", "_").Replace(key))
	for _, name := range known {
		d := distance(folded, name)
		if short := min(len(folded), len(name)); d >= least && short >= 3 &&
			(strings.HasPrefix(name, folded) || strings.HasPrefix(folded, name) || strings.ReplaceAll(name, "_", "") == folded) {
			d = least - 1
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of letters to add, drop or change to get from a to b
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
