package qemutest

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kdomanski/iso9660"
)

// seedData is what the guest takes from its NoCloud seed.
type seedData struct {
	HostKey    []byte
	Authorized []string
	User       string
}

// readSeed reads the user-data of a seed ISO; no path, no data.
func readSeed(path string) (seedData, error) {
	if path == "" {
		return seedData{}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return seedData{}, err
	}
	defer f.Close()
	image, err := iso9660.OpenImage(f)
	if err != nil {
		return seedData{}, err
	}
	root, err := image.RootDir()
	if err != nil {
		return seedData{}, err
	}
	files, err := root.GetChildren()
	if err != nil {
		return seedData{}, err
	}
	for _, file := range files {
		// without Rock Ridge the name is USER_DATA
		name := strings.ReplaceAll(strings.ToLower(file.Name()), "_", "-")
		if strings.TrimRight(name, ".") == "user-data" {
			text, err := io.ReadAll(file.Reader())
			return parseUserData(string(text)), err
		}
	}
	return seedData{}, fmt.Errorf("no user-data among its %d files", len(files))
}

// parseUserData reads the few keys it needs out of cloud-config as package
// seed writes it: block scalars, one list item a line.
func parseUserData(text string) seedData {
	data := seedData{User: "root"}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		key, value := keyValue(line)
		switch key {
		case "ed25519_private":
			data.HostKey = []byte(block(lines[i+1:], indent(line)))
		case "ssh_authorized_keys":
			data.Authorized = append(data.Authorized, items(lines[i+1:], indent(line))...)
		case "name":
			data.User = value
		}
	}
	return data
}

func keyValue(line string) (key, value string) {
	line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
	key, value, ok := strings.Cut(line, ":")
	if !ok {
		return "", ""
	}
	return strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// block joins the lines that stand deeper than the key above them.
func block(lines []string, key int) string {
	var b strings.Builder
	for _, line := range lines {
		if strings.TrimSpace(line) == "" || indent(line) <= key {
			break
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// items are the list items that follow a key.
func items(lines []string, key int) []string {
	var list []string
	for _, line := range lines {
		item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !ok || indent(line) < key {
			break
		}
		list = append(list, strings.Trim(strings.TrimSpace(item), `"'`))
	}
	return list
}
