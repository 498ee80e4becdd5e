package castra

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/workspace"
)

// badNames are no names of VMs: each of what no name may hold, alone and wherever it may stand.
func badNames() []string {
	all := []string{"", "-rf", "a-", "web-0/../x", "../../precious/sentinel", "/etc/passwd", strings.Repeat("x", 33), strings.Repeat("x", 300), strings.Repeat("../", 100) + "x", "CON:", "web.", "web-0.pid"}
	for _, bad := range []string{"/", "\\", "..", ",", "=", "%", ":", ";", "'", "\"", "`", "$(id)", "~", "*", "?", "#", "&", "|", "<", "[", "!", "@", "_", ".", " ", "\t", "\n", "\x00", "\x1b[2J", "\x7f",
		"\u0085", "\u202e", "\u200b", "\ufeff", "A", "é", "ａ", "\u0301"} {
		all = append(all, bad+"b", "a"+bad+"b", "a"+bad, bad)
	}
	return all
}

// E1: a bad name is refused where it is declared, and leads nowhere where it is asked for.
func TestBadNamesSoak(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	p := w.open()
	names := badNames()
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:soak.N(40, len(names))]
	before := tree(t, filepath.Dir(w.dir))
	for _, name := range names {
		for verb, err := range map[string]error{
			"exec":      p.Exec(t.Context(), name, Command{Line: "true"}),
			"ssh":       p.Shell(t.Context(), name, Shell{Stdin: strings.NewReader("")}),
			"up":        p.Up(t.Context(), UpOptions{VMs: []string{name}}),
			"logs":      p.Logs(t.Context(), LogOptions{VM: name + "/"}, io.Discard),
			"copy":      p.Copy(t.Context(), name+":/etc/hostname", filepath.Join(t.TempDir(), "x")),
			"bootstrap": p.Up(t.Context(), UpOptions{Bootstrap: name + "=skip"}),
		} {
			require.Error(t, err, "%s %q", verb, name)
			require.False(t, strings.ContainsAny(explain(err), "\x1b\x00\x7f\u202e\u200b\u0085"), "%s %q: %q", verb, name, explain(err))
		}
		_, err := OpenWorkspaces(w.options(), Selection{Workspace: name + "/x"}, nil)
		require.Error(t, err, "workspace %q", name)
	}
	require.Equal(t, before, tree(t, filepath.Dir(w.dir)), "nothing was made")
	for _, name := range names {
		file := w.write("castra.toml", fmt.Sprintf("version = \"0.2\"\n[project]\nname = \"x\"\n[[vms]]\nname = %s\n", tomlQuote(name)))
		_, err := config.Load(file)
		require.ErrorAs(t, err, new(config.Faults), "%q", name)
	}
	soak.AtLeast(t, "E1", "bad names refused at load and as arguments", 120, float64(len(names)))
}

// tomlQuote writes every character as an escape.
func tomlQuote(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, "\\U%08X", r)
	}
	return `"` + b.String() + `"`
}

// E1: every name that is taken, with its index, is one local file name, and all paths that are made of it lie where they should.
func TestGoodNamesSoak(t *testing.T) {
	const letters, edges = "abcdefghijklmnopqrstuvwxyz0123456789-", 36
	w := newWorld(t, patient)
	r, taken := rand.New(rand.NewPCG(1, 2)), 0
	l := workspace.Layout{Root: "/" + strings.Repeat("deep/", 60)}
	for range soak.N(10, 160) {
		names := map[string]bool{}
		for len(names) < 64 {
			name := make([]byte, 1+r.IntN(32))
			for i := range name {
				if i == 0 || i == len(name)-1 {
					name[i] = letters[r.IntN(edges)]
				} else {
					name[i] = letters[r.IntN(len(letters))]
				}
			}
			names[string(name)] = true
		}
		var source strings.Builder
		source.WriteString("version = \"0.2\"\n[project]\nname = \"x\"\n")
		for name := range names {
			fmt.Fprintf(&source, "[[vms]]\nname = %q\n", name)
		}
		project, err := config.Load(w.write("castra.toml", source.String()))
		if err != nil {
			continue // two of them answer to one name
		}
		for _, vm := range project.VMs {
			requireLocal(t, l, vm.Name)
			taken++
		}
	}
	soak.AtLeast(t, "E1", "names taken that are local paths", 10_000, float64(taken))
}

func requireLocal(t *testing.T, l workspace.Layout, vm string) {
	t.Helper()
	require.True(t, filepath.IsLocal(vm) && filepath.Base(vm) == vm && vm[0] != '-', vm)
	require.LessOrEqual(t, len(l.MonitorName(vm)), 107, "a socket's path")
	paths := []string{l.Pidfile(vm), l.Monitor(vm), l.SerialLog(vm), l.QEMULog(vm), l.Seed(vm), l.Vars(vm), l.HostKey(vm), l.Overlay("x-0", vm)}
	for _, path := range paths {
		require.True(t, l.Contains(path), path)
		require.Equal(t, filepath.Clean(path), path)
		require.LessOrEqual(t, len(filepath.Base(path)), 255)
	}
	slices.Sort(paths)
	require.Len(t, slices.Compact(paths), 8, "no two are one file")
}
