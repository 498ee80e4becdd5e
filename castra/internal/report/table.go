package report

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Table writes rows under an upper-case header, columns aligned and two spaces
// apart, no spaces at line ends. An empty or missing cell is "-". Cells are
// sanitised and stay on one line.
func Table(w io.Writer, header []string, rows [][]string) error {
	all := make([][]string, 0, len(rows)+1)
	columns := len(header)
	for _, row := range rows {
		columns = max(columns, len(row))
	}
	if len(header) > 0 {
		all = append(all, cells(header, columns, strings.ToUpper))
	}
	for _, row := range rows {
		all = append(all, cells(row, columns, func(s string) string { return s }))
	}
	widths := make([]int, columns)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(cell)
				break
			}
			b.WriteString(pad(cell, widths[i]+2))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var oneLine = strings.NewReplacer("\n", `\n`, "\t", `\t`)

// cells makes a row of exactly n printable cells.
func cells(row []string, n int, shape func(string) string) []string {
	out := make([]string, n)
	for i := range out {
		if i < len(row) {
			out[i] = shape(oneLine.Replace(Sanitize(strings.TrimSpace(row[i]))))
		}
		if out[i] == "" {
			out[i] = "-"
		}
	}
	return out
}

// pad fills up with spaces to a width in runes.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}
