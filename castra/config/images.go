package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// images are the names that image may have.
var images = []string{"small"}

const imageHelp = `write image = "small", or base_image = "disk.qcow2"`

func (l *loader) images(t *table, vm *VM) {
	if s, ok := t.str("image"); ok {
		if vm.Image = s; !slices.Contains(images, s) {
			t.fault("image", fmt.Sprintf("%q is none of the images this version of Castra knows: %s", shorten(s), strings.Join(images, ", ")), imageHelp)
		}
	}
	if t.has("image") && t.has("base_image") {
		t.value("base_image")
		t.fault("base_image", "image is given too", "keep one of the two")
	} else {
		vm.BaseImage = l.baseImage(t)
	}
	checksum(t)
	vm.Kernel = l.file(t, "kernel")
	vm.Initrd = l.file(t, "initrd")
	vm.Append, _ = t.str("append")
	for _, key := range []string{"initrd", "append"} {
		if t.has(key) && !t.has("kernel") {
			t.fault(key, "it means nothing without kernel", "add kernel, or remove it")
		}
	}
}

// baseImage is the path of a file; a URL is a fault.
func (l *loader) baseImage(t *table) string {
	s, _ := t.m["base_image"].(string)
	scheme, _, url := strings.Cut(s, "://")
	if !url {
		return l.file(t, "base_image")
	}
	t.value("base_image")
	problem := "this version of Castra does not download images"
	if strings.EqualFold(scheme, "http") {
		problem = "what comes by http can be anybody's, and " + problem
	}
	t.fault("base_image", problem, "download "+shorten(s)+", check its digest, and write the path of the file")
	return ""
}

// lazily compiles an expression when it is first used. Those with large counts take milliseconds, which
// every command would spend.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

var checksumPattern = lazily(`(?i)^(sha512:[0-9a-f]{128}|sha256:[0-9a-f]{64})$`)

// checksum belongs to a URL: there is nothing yet that it could be compared with.
func checksum(t *table) {
	s, ok := t.str("checksum")
	switch {
	case !ok:
	case !checksumPattern().MatchString(strings.TrimSpace(s)):
		t.fault("checksum", fmt.Sprintf("%q is no digest", shorten(s)), "remove it; a digest is sha512: and 128 hexadecimal digits, or sha256: and 64")
	default:
		t.fault("checksum", "this version of Castra downloads no images, and compares no digests", "compare it with that of the file, and remove it")
	}
}
