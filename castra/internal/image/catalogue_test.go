package image

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
)

var (
	catalogueDigest = regexp.MustCompile(`^(sha512:[0-9a-f]{128}|sha256:[0-9a-f]{64})$`)
	catalogueName   = regexp.MustCompile(`^[a-z]+-[0-9]+(\.[0-9]+)*$`)
	catalogueSource = regexp.MustCompile(`^([^/@ ]+/[^/@ ]+/[^@ ]+@[0-9a-f]{40}|https://[^ ]+)$`)
	// A directory that follows the newest build, "release" of Ubuntu among
	// them; "release-20260926" and "releases" do not.
	movingURL = regexp.MustCompile(`(?i)latest|current|daily|/release/`)
	// How the files name an architecture.
	catalogueArch = map[string]*regexp.Regexp{
		"amd64": regexp.MustCompile(`[-.](x86_64|amd64)[-.]`),
		"arm64": regexp.MustCompile(`[-.](aarch64|arm64)[-.]`),
	}
)

func TestCatalogueEntries(t *testing.T) {
	require.NotEmpty(t, catalogue)
	for _, e := range catalogue {
		t.Run(e.Name+"/"+e.Arch, func(t *testing.T) {
			require.Regexp(t, catalogueName, e.Name)
			require.Contains(t, catalogueArch, e.Arch)
			require.Regexp(t, catalogueDigest, e.Digest)
			d, err := digest.Parse(e.Digest)
			require.NoError(t, err)
			require.Equal(t, e.Digest, d.String())
			require.GreaterOrEqual(t, e.Size, int64(0))
			require.NotEmpty(t, e.User)
			require.Regexp(t, catalogueSource, e.Source)
			require.Contains(t, []string{"", "bios", "uefi"}, e.Firmware)
			if e.Arch == "arm64" {
				require.Equal(t, "uefi", e.Firmware, "there is no BIOS on arm64")
			}
			requireDatedURL(t, e)
		})
	}
}

func requireDatedURL(t *testing.T, e Entry) {
	t.Helper()
	u, err := url.Parse(e.URL)
	require.NoError(t, err)
	require.Equal(t, "https", u.Scheme)
	require.NotEmpty(t, u.Host)
	require.Nil(t, u.User)
	require.Empty(t, u.RawQuery)
	require.Empty(t, u.Fragment)
	require.Equal(t, u.String(), e.URL, "the URL is in its plain form")
	require.NotRegexp(t, movingURL, e.URL)

	file := path.Base(u.Path)
	require.Contains(t, []string{".qcow2", ".img"}, path.Ext(file))
	for arch, name := range catalogueArch {
		require.Equal(t, arch == e.Arch, name.MatchString(file), "%s in %s", arch, file)
	}
	distribution, version, _ := strings.Cut(e.Name, "-")
	require.Contains(t, strings.ToLower(file), distribution)
	require.Contains(t, file, "-"+version)
	if e.Firmware == "uefi" {
		require.NotContains(t, file, "-bios-")
	}
	if strings.Contains(file, "-uefi-") {
		require.Equal(t, "uefi", e.Firmware)
	}
}

func TestCatalogueIsSortedAndUnique(t *testing.T) {
	require.True(t, slices.IsSortedFunc(catalogue, func(a, b Entry) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Arch, b.Arch)
	}))
	seen := map[string]string{}
	for _, e := range catalogue {
		id := e.Name + "/" + e.Arch
		for _, key := range []string{id, e.URL, e.Digest} {
			require.NotContains(t, seen, key, "%s has what %s has", id, seen[key])
			seen[key] = id
		}
	}
}

func TestCatalogueHasOneDefaultForEachArchitecture(t *testing.T) {
	defaults := map[string][]string{}
	for _, e := range catalogue {
		if e.Default {
			defaults[e.Arch] = append(defaults[e.Arch], e.Name)
		}
	}
	require.Equal(t, map[string][]string{"amd64": {"alpine-3.23"}, "arm64": {"alpine-3.23"}}, defaults)
}
