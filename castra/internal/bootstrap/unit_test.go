package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseOverride(t *testing.T) {
	roles := map[string]string{"web-0": "web", "web-1": "web", "db-0": "db", "solo": "solo"}
	all := func(mode string) map[string]string {
		return map[string]string{"web-0": mode, "web-1": mode, "db-0": mode, "solo": mode}
	}
	with := func(m map[string]string, pairs ...string) map[string]string {
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for value, want := range map[string]map[string]string{
		"":                         nil,
		"  ":                       nil,
		"skip":                     all("skip"),
		"always":                   all("always"),
		"web=always,db=skip":       {"web-0": "always", "web-1": "always", "db-0": "skip"},
		"web-1=skip, web = always": {"web-0": "always", "web-1": "skip"},
		"solo=auto":                {"solo": "auto"},
		"skip,db-0=always":         with(all("skip"), "db-0", "always"),
		"db-0=always,skip":         with(all("skip"), "db-0", "always"),
	} {
		got, err := ParseOverride(value, roles)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
	}
	for value, wants := range map[string][]string{
		"cache=skip":          {`no VM or role is called "cache"`, "db, db-0, solo, web, web-0, web-1"},
		"never":               {`mode "never" is not one of skip, auto, always`},
		"web=":                {`mode ""`},
		"=skip":               {`no VM or role is called ""`},
		"web=skip,":           {`mode ""`},
		"web=skip,web=auto":   {"given twice"},
		"skip,auto":           {"given twice"},
		"x=skip,y=no,web=off": {`called "x"`, `mode "no"`, `mode "off"`},
	} {
		_, err := ParseOverride(value, roles)
		for _, want := range append(wants, "CASTRA_BOOTSTRAP") {
			require.ErrorContains(t, err, want, value)
		}
	}
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(data), mode))
		require.NoError(t, os.Chmod(path, mode))
	}
	write("run.sh", "echo\n", 0o644)
	write("assets/a", "1", 0o644)
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "assets", "link")))
	plan := Plan{VM: "web-0", Script: filepath.Join(dir, "run.sh"), Payload: filepath.Join(dir, "assets"),
		Env: map[string]string{"A": "1", "B": "2"}, VerifyCommand: "true", VerifyPath: "/x"}
	digest := func(p Plan) string {
		t.Helper()
		d, err := p.Digest()
		require.NoError(t, err)
		return d
	}
	base := digest(plan)
	require.True(t, strings.HasPrefix(base, "sha256:") && len(base) == 7+64)

	same := plan
	same.Run, same.LogPath, same.Mode = "other", "/log", "always"
	require.Equal(t, base, digest(same), "what a run is called does not matter")

	seen := map[string]string{base: "base"}
	changed := func(name string, p Plan) {
		t.Helper()
		d := digest(p)
		require.NotContains(t, seen, d, "%s", name)
		seen[d] = name
	}
	other := plan
	other.Env = map[string]string{"A": "12", "B": ""}
	changed("env", other)
	other = plan
	other.VerifyCommand, other.VerifyPath = "", "true/x"
	changed("verify", other)
	other = plan
	other.Payload = ""
	changed("no payload", other)
	other.Payload = filepath.Join(dir, "assets", "a")
	changed("file payload", other)
	write("run.sh", "echo 2\n", 0o644)
	changed("script", plan)
	write("assets/a", "1", 0o755)
	changed("mode", plan)
	write("assets/a", "2", 0o755)
	changed("content", plan)
	write("assets/new/b", "", 0o644)
	changed("new file", plan)
	require.NoError(t, os.Remove(filepath.Join(dir, "assets", "link")))
	require.NoError(t, os.Symlink("new", filepath.Join(dir, "assets", "link")))
	changed("link", plan)

	plan.Payload = "/no/such"
	_, err := plan.Digest()
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestInterpreter(t *testing.T) {
	for line, want := range map[string][]string{
		"":                            {"sh"},
		"echo":                        {"sh"},
		"#!":                          {"sh"},
		"# !/bin/bash":                {"sh"},
		"#!/bin/sh":                   {"/bin/sh"},
		"#! \t/bin/sh -e -u ":         {"/bin/sh", "-e -u"},
		"#!/usr/bin/env\tbash":        {"/usr/bin/env", "bash"},
		"#!/usr/bin/env -S python -u": {"/usr/bin/env", "-S python -u"},
	} {
		require.Equal(t, want, interpreter(line), line)
	}
	require.Equal(t, []string{"/usr/bin/env", "bash"}, script{interpreter: []string{"/usr/bin/env", "bash"}}.programs())
	require.Equal(t, []string{"/usr/bin/env"}, script{interpreter: []string{"/usr/bin/env", "-S x"}}.programs())
	require.Equal(t, []string{"sh"}, script{interpreter: []string{"sh"}}.programs())
}

func collect(r *redactor) (*lines, *[]string) {
	got := &[]string{}
	return &lines{redactor: r, take: func(line string) { *got = append(*got, line) }}, got
}

func TestLines(t *testing.T) {
	l, got := collect(newRedactor(nil))
	for _, chunk := range []string{"a", "b\nc\r\n\n", "", "d"} {
		_, err := l.Write([]byte(chunk))
		require.NoError(t, err)
	}
	l.end()
	l.end()
	require.Equal(t, []string{"ab", "c", "", "d"}, *got)

	l, got = collect(newRedactor(nil))
	_, _ = l.Write([]byte(strings.Repeat("x", 3*lineMax) + "\nnext\n" + strings.Repeat("ä", lineMax)))
	l.end()
	require.Equal(t, strings.Repeat("x", lineMax)+" [cut]", (*got)[0])
	require.Equal(t, "next", (*got)[1])
	require.True(t, strings.HasSuffix((*got)[2], "ä [cut]"))
}

// G1: however the output is chunked, and wherever a line is cut, no secret
// and no beginning of one at the cut gets through.
func TestRedactG1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(rapid.StringMatching(`[a-c]{6,12}`), 1, 4).Draw(t, "secrets")
		env := map[string]string{"SHORT": "short"}
		for i, s := range secrets {
			env[string(rune('A'+i))] = s
		}
		l, got := collect(newRedactor(env))
		piece := rapid.OneOf(rapid.SampledFrom(append(secrets, "\n", "short")), rapid.StringMatching(`[x-z]{0,40}`),
			rapid.Just(strings.Repeat("y", lineMax-4)))
		for _, p := range rapid.SliceOf(piece).Draw(t, "pieces") {
			split := rapid.IntRange(0, len(p)).Draw(t, "split")
			_, _ = l.Write([]byte(p[:split]))
			_, _ = l.Write([]byte(p[split:]))
		}
		l.end()
		for _, line := range *got {
			for _, s := range secrets {
				if strings.Contains(line, s) {
					t.Fatalf("%q got through", s)
				}
			}
			if before, cut := strings.CutSuffix(line, " [cut]"); cut && strings.HasSuffix(before, secrets[0][:5]) {
				t.Fatalf("the line was cut inside a secret: %q", before[len(before)-20:])
			}
			if len(line) > lineMax+len(" [cut]") {
				t.Fatalf("%d bytes", len(line))
			}
		}
	})
	require.Equal(t, "*** ok short", newRedactor(map[string]string{"A": "secret-1", "B": "short"}).text("secret-1 ok short"))
	require.Equal(t, "***", newRedactor(map[string]string{"A": "secret", "B": "secret-long"}).text("secret-long"))
}

func TestTail(t *testing.T) {
	var kept tail
	for range 3 * tailMax {
		kept.add("x")
	}
	require.Len(t, kept.lines, tailMax)
	for range 100 {
		kept.add(strings.Repeat("x", lineMax))
	}
	require.Len(t, kept.lines, tailBytesMax/lineMax)
	require.Len(t, kept.last(20), 20)
	require.Empty(t, (&tail{}).last(20))
}
