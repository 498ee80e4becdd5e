package report

import (
	"io"
	"strings"
)

// Table writes rows under an upper-case header, columns aligned and two spaces
// apart, no spaces at line ends. An empty or missing cell is "-". Cells are
// sanitised; the lines of a cell stand below each other in its column.
func Table(w io.Writer, header []string, rows [][]string) error {
	columnCount := len(header)
	for _, row := range rows {
		columnCount = max(columnCount, len(row))
	}
	var all [][]string
	if len(header) > 0 {
		upper := make([]string, len(header))
		for i, name := range header {
			upper[i] = strings.ToUpper(name)
		}
		all = append(all, stack(upper, columnCount)...)
	}
	for _, row := range rows {
		all = append(all, stack(row, columnCount)...)
	}
	widths := make([]int, columnCount)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(pad(cell, widths[i]+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// stack makes a row as many lines of n clean cells as its tallest cell has.
func stack(row []string, n int) [][]string {
	var lines [][]string
	for i := range n {
		cell := "-"
		if i < len(row) && strings.TrimSpace(row[i]) != "" {
			cell = strings.TrimSpace(row[i])
		}
		for at, s := range strings.Split(cell, "\n") {
			if at == len(lines) {
				lines = append(lines, make([]string, n))
			}
			lines[at][i] = flat(strings.TrimSpace(s))
		}
	}
	return lines
}
