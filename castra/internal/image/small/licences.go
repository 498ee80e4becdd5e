package small

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// copyrightOf is where Debian's packages say their licence; isCopyright tells such a path from others.
func copyrightOf(name string) string { return "usr/share/doc/" + name + "/copyright" }

func isCopyright(file string) bool {
	ok, err := path.Match(copyrightOf("*"), file)
	return ok && err == nil
}

// setLicenses reads what each package's copyright file below dir says. A package without one keeps an empty licence.
func setLicenses(list []pkg, dir func(elem ...string) string) {
	for i := range list {
		if text, err := os.ReadFile(dir(copyrightOf(list[i].Name))); err == nil {
			list[i].License = licenseIn(text)
		}
	}
}

var commonLicense = regexp.MustCompile(`/usr/share/common-licenses/([A-Za-z]+(?:-[0-9.]*[0-9])?)`)

// licenseIn returns the licence of "Files: *" in a copyright file that is machine readable (Debian's copyright format 1.0). In
// others it is the names of the common licences that the text refers to, which may be those of parts.
func licenseIn(text []byte) string {
	all := false
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.TrimSpace(lines.Text()) == "":
			all = false
		case key == "Files":
			all = slices.Contains(strings.Fields(value), "*")
		case key == "License" && all && value != "":
			return value
		}
	}
	var names []string
	for _, found := range commonLicense.FindAllSubmatch(text, -1) {
		if name := string(found[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
