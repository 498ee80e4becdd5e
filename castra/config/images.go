package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

const imageHelp = `write image = "small" or a name that mage images lists, or base_image = "disk.qcow2"`

// imagePattern is that of names: which of them there are, is for those to tell who have the images.
var imagePattern = lazily(`^[a-z0-9][a-z0-9.-]{0,62}$`)

func (l *loader) images(t *table, vm *VM) {
	if s, ok := t.str("image"); ok {
		if vm.Image = s; !imagePattern().MatchString(s) {
			t.fault("image", fmt.Sprintf("%q is no name of an image", shorten(s)), imageHelp)
		}
	}
	if t.has("image") && t.has("base_image") {
		t.value("base_image")
		t.value("checksum")
		t.fault("base_image", "image is given too", "keep one of the two")
	} else {
		vm.BaseImage, vm.BaseURL, vm.Checksum = l.baseImage(t)
	}
	vm.DiskMiB = disk(t)
	vm.UserData = l.file(t, "user_data")
	vm.Kernel = l.file(t, "kernel")
	vm.Initrd = l.file(t, "initrd")
	vm.Append, _ = t.str("append")
	for _, key := range []string{"initrd", "append"} {
		if t.has(key) && !t.has("kernel") {
			t.fault(key, "it means nothing without kernel", "add kernel, or remove it")
		}
	}
}

// baseImage is the path of a file or a URL, and the digest that it must have.
func (l *loader) baseImage(t *table) (file, address, digest string) {
	digest = checksum(t)
	s, _ := t.m["base_image"].(string)
	scheme, _, isURL := strings.Cut(s, "://")
	if !isURL {
		return l.file(t, "base_image"), "", digest
	}
	t.value("base_image")
	at, err := url.Parse(s)
	switch {
	case !strings.EqualFold(scheme, "https"):
		t.fault("base_image", "images are fetched by https only, and this is "+shorten(scheme), "write an https URL, or fetch the file and write its path")
	case err != nil, at.Hostname() == "", strings.Trim(at.Path, "/") == "":
		t.fault("base_image", fmt.Sprintf("%q is no URL of a file", shorten(s)), `write it as "https://host/path/disk.qcow2"`)
	case at.User != nil:
		t.fault("base_image", "the URL holds a name or a password, which would be kept in clear", "fetch the file by other means, and write its path")
	case !t.has("checksum"):
		t.fault("base_image", "a URL without a checksum: what comes from there could be anything",
			`add checksum = "sha512:…", which those who publish the image list beside it`)
	default:
		return "", s, digest
	}
	return "", "", ""
}

// lazily compiles an expression when it is first used. Those with large counts take milliseconds, which
// every command would spend.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

var checksumPattern = lazily(`(?i)^(sha512:[0-9a-f]{128}|sha256:[0-9a-f]{64})$`)

// checksum is the digest of base_image, in lower case.
func checksum(t *table) string {
	const forms = "a digest is sha512: and 128 hexadecimal digits, or sha256: and 64"
	s, ok := t.str("checksum")
	s = strings.TrimSpace(s)
	switch {
	case !ok:
		return ""
	case !checksumPattern().MatchString(s):
		t.fault("checksum", fmt.Sprintf("%q is no digest", shorten(s)), "write one, or remove it; "+forms)
		return ""
	case !t.has("base_image"):
		t.fault("checksum", "there is no base_image that it could be of", "add base_image, or remove it")
		return ""
	default:
		return strings.ToLower(s)
	}
}
