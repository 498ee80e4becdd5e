package bootstrap

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzParseOverride: CASTRA_BOOTSTRAP gives modes that there are to VMs that there are, or is refused.
func FuzzParseOverride(f *testing.F) {
	roles := map[string]string{"web-0": "web", "web-1": "web", "db-0": "db", "solo": "solo"}
	for _, s := range []string{"", " ", "skip", "web=always,db=skip", "skip, web-1 = auto", "=skip", "web=", ",", "web=skip,web=skip", "x=y=z", "web-0=always,web=skip,auto", "skip\n", "\x00=skip"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, err := ParseOverride(value, roles)
		if err != nil {
			require.Nil(t, got)
			require.ErrorContains(t, err, "CASTRA_BOOTSTRAP: ")
			return
		}
		require.Equal(t, strings.TrimSpace(value) == "", len(got) == 0)
		for vm, mode := range got {
			require.Contains(t, roles, vm)
			require.Contains(t, modes, mode)
		}
		// What it gives, written out VM by VM, means the same.
		var items []string
		for _, vm := range slices.Sorted(maps.Keys(got)) {
			items = append(items, vm+"="+got[vm])
		}
		again, err := ParseOverride(strings.Join(items, ","), roles)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}

// FuzzRedact: of whatever a script prints in whatever pieces, no value of six bytes or more gets through, no line is longer than it
// may be, and the same text in one piece gives the same lines.
func FuzzRedact(f *testing.F) {
	f.Add("hunter2secret", "multi\nline secret\nx", []byte("a hunter2secret b\nmulti\nline secret\nx\n"), uint16(7))
	f.Add("aaaaaa", "aaaaaaa", []byte("aaaaaaaaaaaaaaa\r\naaaaa\n"), uint16(1))
	f.Add("short", "", []byte("short\n\x00\xff\n"), uint16(2))
	f.Add("-----BEGIN KEY-----\r\nabc\r\n-----END KEY-----", "\n\n\n\n\n\n\n", []byte("\n\n-----BEGIN KEY-----\r\nabc\r\n"), uint16(3))
	f.Add("******", "x***x***", []byte("x******x\n"), uint16(3))
	f.Fuzz(func(t *testing.T, a, b string, output []byte, chunk uint16) {
		if len(output) > 64<<10 || len(a)+len(b) > 32<<10 {
			return
		}
		r := newRedactor(map[string]string{"A": a, "B": b})
		whole, want := collect(r)
		_, _ = whole.Write(output)
		whole.end()
		pieces, got := collect(r)
		for piece := range slices.Chunk(output, int(chunk)+1) {
			_, _ = pieces.Write(piece)
		}
		pieces.end()
		require.Equal(t, *want, *got)
		require.LessOrEqual(t, len(*got), 1+strings.Count(string(output), "\n"))
		for _, line := range *got {
			require.LessOrEqual(t, len(line), lineMax+len(" [cut]"))
			requireNone(t, line, a, b)
		}
		requireNone(t, r.text(string(output)), a, b)
	})
}

// requireNone looks for the values where the asterisks that stand for them are none of theirs.
func requireNone(t *testing.T, told string, values ...string) {
	t.Helper()
	for _, value := range values {
		for _, line := range append(strings.Split(value, "\n"), value) {
			if len(value) >= secretMin && len(line) >= secretMin && !strings.Contains(line, "*") && utf8.ValidString(line) {
				require.NotContains(t, told, line)
			}
		}
	}
}

// FuzzInterpreter: a script's first line names a program with one argument at most, as Linux reads it.
func FuzzInterpreter(f *testing.F) {
	for _, s := range []string{"#!/bin/sh", "#! /usr/bin/env -S a b\t", "#!", "", "#!\x00", "#!  ", "x#!/bin/sh", "#!/bin/sh\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := interpreter(line)
		require.True(t, len(words) == 1 || len(words) == 2)
		require.NotEmpty(t, words[0])
		require.NotContains(t, words[0], " ")
		for _, word := range words {
			require.True(t, word == "sh" || strings.Contains(line, word))
		}
		programs := script{interpreter: words}.programs()
		require.True(t, len(programs) == 1 || len(programs) == 2 && !strings.HasPrefix(programs[1], "-"))
	})
}
