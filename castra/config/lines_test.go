package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/require"
)

const winding = `# [not.a.table]
a = 1 # b = 2
"quoted key" = """
[in.a.string]
x = 1 \""" ""\"
"""""
'lit.eral' = '''
[[vms]]
'''
dotted . "b.c" . d = [ # comment ]
  1, "]", # 2
  [ 2,
    3 ],
  { k = 4,
    l.m = '}' },
]
inline = { x = 1, y = { z = "\"}" }, w = [ 5 ] }
"\u0061\"b" = "it's"
date = 1979-05-27 07:32:00

[ t . u ] # ]
key = "#"

[[ t.v ]]
[t.v.w]
k = 1
[[t.v]]
k = ''
[[t.v.x]]
[[t.v.x]]
k = """"two" and ""more"""""
last = true`

func TestLines(t *testing.T) {
	found, over := index(winding)
	require.Zero(t, over)
	require.Equal(t, lines{
		"a": 2, `"quoted key"`: 3, `"lit.eral"`: 7,
		"dotted": 10, `dotted."b.c"`: 10, `dotted."b.c".d`: 10, `dotted."b.c".d[0]`: 11, `dotted."b.c".d[1]`: 11, `dotted."b.c".d[2]`: 12,
		`dotted."b.c".d[2][0]`: 12, `dotted."b.c".d[2][1]`: 13, `dotted."b.c".d[3]`: 14, `dotted."b.c".d[3].k`: 14, `dotted."b.c".d[3].l`: 15, `dotted."b.c".d[3].l.m`: 15,
		"inline": 17, "inline.x": 17, "inline.y": 17, "inline.y.z": 17, "inline.w": 17, "inline.w[0]": 17,
		`"a\"b"`: 18, "date": 19,
		"t": 21, "t.u": 21, "t.u.key": 22,
		"t.v": 24, "t.v[0]": 24, "t.v[0].w": 25, "t.v[0].w.k": 26, "t.v[1]": 27, "t.v[1].k": 28,
		"t.v[1].x": 29, "t.v[1].x[0]": 29, "t.v[1].x[1]": 30, "t.v[1].x[1].k": 31, "t.v[1].x[1].last": 32,
	}, found)
	require.Equal(t, found, missing(t, winding, found))
	crlf, _ := index(strings.ReplaceAll(winding, "\n", "\r\n"))
	require.Equal(t, found, crlf)
}

func TestNearestLine(t *testing.T) {
	found, _ := index("a = 1\n[[vms]]\nname = \"x\"\n[vms.ssh]\n[[vms]]\n")
	for path, want := range map[string]int{
		"vms[0].name": 3, "vms[0].memory": 2, "vms[0].ssh.user": 4, "vms[0].port_forwards[3].guest": 2, "vms[1].name": 5, "vms[7].x": 2,
		"project.name": 1, "": 1, `vms[1]."a.b[".c`: 5,
	} {
		require.Equal(t, want, found.of(path), path)
	}
}

func TestNesting(t *testing.T) {
	for text, want := range map[string]int{
		"a = " + strings.Repeat("[", 16) + strings.Repeat("]", 16):             0,
		"\na = " + strings.Repeat("[", 17) + strings.Repeat("]", 17):           2,
		"\na = [\n" + strings.Repeat("{a=", 16) + "1":                          3,
		strings.Repeat("a.", 15) + "a = 1":                                     0,
		"\n[" + strings.Repeat("a.", 16) + "a]":                                2,
		strings.Repeat("a", 128) + " = 1":                                      0,
		strings.Repeat("a", 129) + " = 1":                                      1,
		"\n['" + strings.Repeat("a", 129) + "']":                               2,
		"a = \"" + strings.Repeat("[", 99) + "\" # " + strings.Repeat("[", 99): 0,
	} {
		_, over := index(text)
		require.Equal(t, want, over.line, text)
	}
}

// missing checks that every key of valid TOML has a line, and gives found back.
func missing(t *testing.T, text string, found lines) lines {
	t.Helper()
	var m map[string]any
	_, err := toml.Decode(text, &m)
	require.NoError(t, err)
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if path != "" {
			require.Contains(t, found, path)
		}
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(join(path, segment(key)), value)
			}
		case []map[string]any:
			for i, value := range v {
				walk(element(path, i), value)
			}
		case []any:
			for i, value := range v {
				walk(element(path, i), value)
			}
		}
	}
	walk("", m)
	return found
}

// FuzzLoadConfig feeds whole files: Load must end without a panic, and every key of
// what is TOML must have a line.
func FuzzLoadConfig(f *testing.F) {
	sources, err := filepath.Glob("testdata/faults/*.toml")
	require.NoError(f, err)
	for _, source := range append(sources, "testdata/full.toml") {
		data, err := os.ReadFile(source)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(winding))
	file := filepath.Join(f.TempDir(), FileName)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		require.NoError(t, os.WriteFile(file, data, 0o644))
		p, err := Load(file)
		if err == nil {
			require.NotEmpty(t, p.VMs)
			require.LessOrEqual(t, len(p.VMs), maxVMs)
			for _, vm := range p.VMs {
				require.Regexp(t, `^[a-z0-9][a-z0-9-]{0,34}$`, vm.Name)
			}
			requireSnapshot(t, p)
		} else {
			var all Faults
			require.ErrorAs(t, err, &all)
			require.LessOrEqual(t, len(all), maxFaults+1)
		}
		source, err := text(file, data)
		var m map[string]any
		if err != nil || strings.ContainsRune(source, '\\') { // escapes of keys need not be understood
			return
		}
		found, over := index(source)
		if _, err := toml.Decode(source, &m); err == nil && over.line == 0 {
			missing(t, source, found)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	var source strings.Builder
	source.WriteString(head)
	for i := range 64 {
		source.WriteString("[[vms]]\nname = \"vm" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + "\"\ncpus = 1\nmemory = \"1.5 GiB\"\nimage = \"small\"\n" +
			"[[vms.port_forwards]]\nguest = 80\n[[vms.port_forwards]]\nguest = 443\n[vms.bootstrap]\nscript = \"run.sh\"\nenv = { A = \"1\", B = \"2\" }\n")
	}
	file := write(b, source.String(), "run.sh")
	for b.Loop() {
		if _, err := Load(file); err != nil {
			b.Fatal(err)
		}
	}
}
