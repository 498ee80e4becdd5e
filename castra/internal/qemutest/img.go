package qemutest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// runImg is the fake qemu-img: create and info.
func runImg(args []string) int {
	personality := Personality(os.Getenv(envImg))
	switch {
	case len(args) == 0:
		return complain("Not enough arguments")
	case args[0] == "--version":
		fmt.Println("qemu-img version 7.2.22 (fake)")
		return 0
	case personality.Has("exit-1"):
		return complain("fake: failing, as told")
	case personality.Has("missing-output"):
		return 0
	case personality.Has("signal"):
		dieBy("KILL")
	case personality.Has("big-stderr"):
		for range 10 << 10 {
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 1023))
		}
		return 1
	}
	switch args[0] {
	case "create":
		return imgCreate(args[1:])
	case "info":
		return imgInfo(args[1:])
	}
	return complain("Command not found: %s", args[0])
}

// imgFlags splits qemu-img's arguments into flags with their values and the
// rest.
func imgFlags(args []string) (flags map[string]string, rest []string) {
	flags = map[string]string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-q" || a == "-u" || a == "-U" || strings.HasPrefix(a, "--"):
			flags[a] = "on"
		case strings.HasPrefix(a, "-") && i+1 < len(args):
			i++
			flags[a] = args[i]
		default:
			rest = append(rest, a)
		}
	}
	return flags, rest
}

func imgCreate(args []string) int {
	flags, rest := imgFlags(args)
	if len(rest) == 0 || flags["-f"] != "qcow2" {
		return complain("fake: create needs -f qcow2 and a file name")
	}
	path, base, format := rest[0], flags["-b"], flags["-F"]
	var size uint64
	if base != "" {
		found := relativeTo(base, path)
		var err error
		if size, err = sizeOf(found, format); err != nil {
			return complain("%s: Could not open '%s': %v\nCould not open backing image.", path, found, err)
		}
	}
	if len(rest) > 1 {
		var err error
		if size, err = parseSize(rest[1]); err != nil {
			return complain("Invalid image size specified")
		}
	}
	if base == "" && len(rest) == 1 {
		return complain("%s: Image creation needs a size parameter", path)
	}
	if err := writeQcow2(path, size, base, format); err != nil {
		return complain("%s: Could not create '%s': %s", path, path, reason(err))
	}
	if flags["-q"] == "" {
		fmt.Printf("Formatting '%s', fmt=qcow2 cluster_size=65536 size=%d\n", path, size)
	}
	return 0
}

func imgInfo(args []string) int {
	_, rest := imgFlags(args)
	if len(rest) != 1 {
		return complain("Expecting one image file name")
	}
	path := rest[0]
	info := map[string]any{"filename": path, "format": "raw", "dirty-flag": false}
	h, err := headerOf(path)
	stat, statErr := os.Stat(path)
	if statErr != nil {
		return complain("Could not open '%s': %v", path, err)
	}
	info["actual-size"], info["virtual-size"] = stat.Size(), stat.Size()
	if err == nil {
		info["format"], info["virtual-size"], info["cluster-size"] = "qcow2", h.Size, 1<<h.ClusterBits
		if base, format, err := backingIn(path); err != nil {
			return complain("Could not open '%s': %v", path, err)
		} else if base != "" {
			info["backing-filename"] = base
			info["full-backing-filename"] = relativeTo(base, path)
			info["backing-filename-format"] = format
		}
	}
	out, _ := json.MarshalIndent(info, "", "    ")
	fmt.Println(string(out))
	return 0
}

func headerOf(path string) (qcow2Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return qcow2Header{}, fmt.Errorf("%s", reason(err))
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return h, errNoQcow2
	}
	return h, nil
}

func backingIn(path string) (base, format string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("%s", reason(err))
	}
	defer f.Close()
	return backingOf(f)
}

// sizeOf is that of the disk in an image, in bytes.
func sizeOf(path, format string) (uint64, error) {
	if format != "raw" {
		h, err := headerOf(path)
		return h.Size, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("%s", reason(err))
	}
	return (uint64(stat.Size()) + 511) &^ 511, nil
}

// relativeTo resolves a backing file's name as QEMU does: beside the image.
func relativeTo(base, image string) string {
	if filepath.IsAbs(base) {
		return base
	}
	return filepath.Join(filepath.Dir(image), base)
}

func parseSize(s string) (uint64, error) {
	shift := 0
	for suffix, bits := range map[string]int{"K": 10, "M": 20, "G": 30, "T": 40} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, shift = number, bits
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return n << shift, err
}
