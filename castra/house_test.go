package castra_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mayImport is the picture in the README's "Architecture": what each package
// below castra/ may import of the others. An import may only go down.
var mayImport = map[string][]string{
	"castra": {"config", "event", "internal/bootstrap", "internal/guest", "internal/host", "internal/image", "internal/logs",
		"internal/qemu", "internal/report", "internal/seed", "internal/warm", "internal/workspace", "template"},

	"castratest": {"castra", "internal/report"},

	"internal/bootstrap": {"event", "internal/guest"},
	"internal/report":    {"event"},
	"internal/warm":      {"internal/guest", "internal/host", "internal/qemu"},

	"internal/image":     {"internal/host", "internal/image/digest", "internal/image/fetch", "internal/image/small", "internal/image/unpack"},
	"internal/qemu":      {"event", "internal/host", "internal/qmp"},
	"internal/workspace": {"internal/host"},

	"config":                nil,
	"event":                 nil,
	"internal/guest":        nil,
	"internal/host":         nil,
	"internal/image/digest": nil,
	"internal/image/fetch":  {"internal/image/digest"},
	"internal/image/small":  nil,
	"internal/image/unpack": nil,
	"internal/logs":         nil,
	"internal/qmp":          nil,
	"internal/seed":         nil,
	"template":              nil,

	// for tests alone
	"internal/qemutest": {"internal/seed"},
	"internal/e2e":      nil,
	"internal/hostile":  nil,
	"internal/soak":     nil,
	"internal/sweep":    nil,
}

// doors are the only packages that may import a module; testify is for tests.
var doors = map[string][]string{
	"github.com/BurntSushi/toml":         {"config"},
	"github.com/digitalocean/go-qemu":    {"internal/qmp"},
	"golang.org/x/crypto":                {"internal/guest", "internal/seed", "internal/qemutest"},
	"github.com/magefile/mage":           {"castra"},
	"github.com/kdomanski/iso9660":       {"internal/seed", "internal/qemutest"},
	"github.com/google/renameio/v2":      {"internal/bootstrap", "internal/qemu", "internal/seed"},
	"github.com/klauspost/compress":      {"internal/image/small", "internal/image/unpack"},
	"github.com/ulikunitz/xz":            {"internal/image/small", "internal/image/unpack"},
	"github.com/stretchr/testify":        {},
	"github.com/rogpeppe/go-internal":    {},
	"go.uber.org/goleak":                 {},
	"github.com/anishathalye/porcupine":  {},
	"pgregory.net/rapid":                 {},
	"github.com/digitalocean/go-libvirt": {},
}

// neverImport are parts of allowed modules that are too large for what they
// give.
var neverImport = []string{"github.com/digitalocean/go-qemu/qemu", "github.com/digitalocean/go-qemu/hypervisor", "github.com/digitalocean/go-qemu/qmp/raw"}

const module = "castra.example/castra/"

type listed struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []listed {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "castra.example/castra/castra/...", "castra.example/castra/template").Output()
	require.NoError(t, err)
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listed
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, l)
	}
	require.NotEmpty(t, all)
	return all
}

// room is a package's name in the tables above: its path below castra/.
func room(importPath string) string {
	rest := strings.TrimPrefix(importPath, module)
	if rest == "castra" || rest == "template" {
		return rest
	}
	return strings.TrimPrefix(rest, "castra/")
}

func TestImportsGoDown(t *testing.T) {
	for _, pkg := range list(t) {
		allowed, known := mayImport[room(pkg.ImportPath)]
		if !known {
			t.Errorf("%s is not in the picture: add it to mayImport and to the README, with the reason in the commit", pkg.ImportPath)
		}
		for _, imported := range pkg.Imports {
			if strings.HasPrefix(imported, module) && !slices.Contains(allowed, room(imported)) {
				t.Errorf("%s imports %s; it may import %v", room(pkg.ImportPath), room(imported), allowed)
			}
		}
	}
}

func TestOneDoorAModule(t *testing.T) {
	for _, pkg := range list(t) {
		for _, imported := range pkg.Imports {
			for mod, rooms := range doors {
				if (imported == mod || strings.HasPrefix(imported, mod+"/")) && !slices.Contains(rooms, room(pkg.ImportPath)) {
					t.Errorf("%s imports %s; its doors are %v", room(pkg.ImportPath), imported, rooms)
				}
			}
			require.NotContains(t, neverImport, imported, pkg.ImportPath)
		}
	}
}

// The lists above are of this house, and not of one that was pulled down.
func TestPictureHasNoGhosts(t *testing.T) {
	var rooms []string
	for _, pkg := range list(t) {
		rooms = append(rooms, room(pkg.ImportPath))
	}
	for name := range mayImport {
		require.Contains(t, rooms, name)
	}
}

// The README shows one example of each kind of event, and every target.
func TestReadmeIsTrue(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	examples, err := os.ReadFile("event/testdata/examples.jsonl")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```json\n"+string(examples)+"```\n")
	list, err := os.ReadFile("testdata/magefiles/root/list.golden")
	require.NoError(t, err)
	targets := 0
	for line := range strings.Lines(string(list)) {
		if name, _, found := strings.Cut(strings.TrimPrefix(line, "  "), " "); found && strings.HasPrefix(line, "  ") {
			targets++
			require.Regexp(t, "(?m)^\\| `"+name+"( [A-Z]|`)", string(readme), "the table of targets")
		}
	}
	require.Equal(t, 16, targets)
}
