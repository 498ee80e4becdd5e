package report

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ourControls are the sequences that the text is made of.
var ourControls = regexp.MustCompile(`\r|\x1b\[(\d*A|[JK]|[0-9;]*m|\?7[hl])`)

// screen is a terminal that knows ourControls and nothing else. Like real ones
// it wraps lines that are too wide, and cannot go up above its top row.
type screen struct {
	t        *testing.T
	width    int
	rows     [][]rune
	row, col int
	nowrap   bool
	writes   int
}

func newScreen(t *testing.T, width int) *screen {
	return &screen{t: t, width: width, rows: [][]rune{nil}}
}

func (s *screen) Write(p []byte) (int, error) {
	s.writes++
	text := string(p)
	for text != "" {
		if at := ourControls.FindStringIndex(text); at != nil && at[0] == 0 {
			s.control(text[:at[1]])
			text = text[at[1]:]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		require.True(s.t, r == '\n' || !unsafeRune(r), "unknown control in %q", text)
		s.print(r)
	}
	return len(p), nil
}

func (s *screen) control(c string) {
	switch last := c[len(c)-1]; last {
	case '\r':
		s.col = 0
	case 'h', 'l':
		s.nowrap = last == 'l'
	case 'A':
		n, err := strconv.Atoi(c[2 : len(c)-1])
		require.NoError(s.t, err)
		require.LessOrEqual(s.t, n, s.row, "the cursor would leave the top")
		s.row -= n
	case 'K', 'J':
		s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
		if last == 'J' {
			s.rows = s.rows[:s.row+1]
		}
	}
}

func (s *screen) print(r rune) {
	if s.nowrap && r != '\n' {
		require.Less(s.t, s.col+runeColumns(r), s.width, "a live line must not count on being cut off")
	}
	if r == '\n' || s.col+runeColumns(r) > s.width {
		s.row, s.col = s.row+1, 0
		if s.row == len(s.rows) {
			s.rows = append(s.rows, nil)
		}
		if r == '\n' {
			return
		}
	}
	row := s.rows[s.row]
	for range runeColumns(r) { // a wide rune stands in both its columns
		row = append(row[:min(s.col, len(row))], append([]rune{r}, row[min(s.col+1, len(row)):]...)...)
		s.col++
	}
	s.rows[s.row] = row
}

// lines are what can be read, the empty last row left out.
func (s *screen) lines() []string {
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
