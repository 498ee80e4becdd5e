package castra

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
)

// checkGuests looks for the programs of QEMU, runs each that is there, and looks for the firmware that VMs need, for
// each architecture of a VM.
func checkGuests(ctx context.Context, vms []config.VM, o Options) []Check {
	wanted := map[string][]string{} // firmware, by architecture
	for _, vm := range vms {
		wanted[archOf(vm)] = append(wanted[archOf(vm)], firmwareWanted(vm, o))
	}
	if len(vms) == 0 {
		wanted[goarch] = nil
	}
	var checks []Check
	for _, arch := range []string{"amd64", "arm64"} {
		firmware, ok := wanted[arch]
		if !ok {
			continue
		}
		of := ""
		if arch != goarch {
			of = " for " + image.ArchName(arch)
		}
		system, err := qemu.FindSystem(arch)
		checks = append(checks, checkTool(ctx, "QEMU"+of, system, err, checkFault))
		if err == nil {
			checks = append(checks, checkFirmware(ctx, "firmware"+of, system, arch, firmware))
		}
	}
	img, err := qemu.FindImg()
	return append(checks, checkTool(ctx, "qemu-img", img, err, checkWarning)) // only building the small guest needs it
}

// firmwareWanted is what a VM will boot by, as far as can be told before its image is here.
func firmwareWanted(vm config.VM, o Options) string {
	var base image.Base
	if vm.Image == image.Small {
		base.Kernel = "its own"
	} else if e, ok := entryOf(vm, o); ok {
		base.Firmware = e.Firmware
	}
	return firmwareOf(vm, base)
}

// entryOf is the catalogue's entry that a VM boots from; false where it boots from something else.
func entryOf(vm config.VM, o Options) (image.Entry, bool) {
	var e image.Entry
	var err error
	switch {
	case vm.Image == image.Small, vm.BaseURL != "", vm.BaseImage != "", vm.Image == "" && o.BaseImage != "":
		return e, false
	case vm.Image != "":
		e, err = image.Named(vm.Image, archOf(vm))
	default:
		e, err = image.DefaultEntry(archOf(vm))
	}
	return e, err == nil
}

func checkTool(ctx context.Context, name, path string, err error, otherwise string) Check {
	var version string
	if err == nil {
		version, err = qemu.Version(ctx, path)
	}
	return check(name, fmt.Sprintf("%s, %s", version, path), err, otherwise)
}

// checkFirmware tells of the firmware of one architecture. Wanted is what each of its VMs boots by; a kernel is booted through the BIOS.
func checkFirmware(ctx context.Context, name, system, arch string, wanted []string) Check {
	uefi, uefiErr := qemu.FindUEFI(ctx, system, arch)
	if uefiErr != nil && slices.Contains(wanted, "uefi") {
		return check(name, "", uefiErr, checkFault)
	}
	var found []string
	if arch == "amd64" {
		has, err := qemu.FindFirmware(ctx, system)
		switch {
		case err != nil:
			return check(name, "", err, checkWarning) // QEMU itself is judged by its version
		case has.BIOS != "":
			found = append(found, has.BIOS)
		case len(wanted) == 0 || slices.ContainsFunc(wanted, func(f string) bool { return f != "uefi" }):
			return Check{name, checkFault, "QEMU finds no SeaBIOS", qemu.SeaBIOS.Install()}
		}
	}
	if uefiErr == nil {
		found = append(found, uefi.Code)
		return Check{name, checkOK, strings.Join(found, ", "), ""}
	}
	found = append(found, "none for UEFI, which some images need")
	return Check{name, checkOK, strings.Join(found, ", "), hint(uefiErr)}
}

// checkImages tells which images up would fetch, and whether there is room for them.
func checkImages(home string, vms []config.VM, o Options) Check {
	const name = "images"
	var here, missing []string
	need := uint64(0)
	for _, vm := range vms {
		title, bytes, there, err := imageState(home, vm, o)
		switch {
		case err != nil:
			return check(name, "", &VMError{Op: "image of", VM: vm.Name, Err: err}, checkFault)
		case title == "" || slices.Contains(here, title) || slices.Contains(missing, title):
		case there:
			here = append(here, title)
		default:
			missing, need = append(missing, title), need+bytes
		}
	}
	var told []string
	if len(here) > 0 {
		told = append(told, "here: "+strings.Join(here, ", "))
	}
	if len(missing) > 0 {
		told = append(told, fmt.Sprintf("to be fetched: %s, %s", strings.Join(missing, ", "), room(need)))
	}
	if len(told) == 0 {
		told = []string{"none to be fetched"}
	}
	detail := strings.Join(told, "; ")
	free, err := host.FreeDisk(existing(home))
	if home == "" || err != nil || need == 0 {
		return Check{name, checkOK, detail, ""}
	}
	return checkRoomFor(name, fmt.Sprintf("%s, of %s free for %s", detail, room(free), home), free, need, need, false,
		"make room there, or set CASTRA_HOME to a directory on another disk")
}

// usualImage is how large an image is taken to be whose size nobody tells, in bytes.
const usualImage = 1 << 30

// imageState tells of the image of the store that a VM boots from: its title, "" where it boots from none, and its size in bytes.
func imageState(home string, vm config.VM, o Options) (title string, bytes uint64, there bool, err error) {
	var src image.Source
	e, named := entryOf(vm, o)
	switch {
	case named:
		src = e.From(o.ImageMirror)
	case vm.BaseURL != "":
		src, err = image.URLSource(vm.BaseURL, vm.Checksum)
	case vm.Image != "" && vm.Image != image.Small:
		_, err = image.Named(vm.Image, archOf(vm))
	default:
		return "", 0, false, nil
	}
	if err != nil {
		return "", 0, false, err
	}
	_, there = image.Find(home, src)
	bytes = uint64(src.Size)
	if bytes == 0 {
		bytes = usualImage
	}
	return src.Title(), bytes, there, nil
}

// smallPrograms are those of the host that build the small guest.
var smallPrograms = []string{"qemu-img", "apt-get", "apt-cache", "dpkg-deb"}

// checkSmall tells whether there is a small guest or one can be made. It is a
// fault only for a project that wants it.
func checkSmall(home string, vms []config.VM) Check {
	const name = "small guest"
	arch := goarch
	state := checkWarning
	for _, vm := range vms {
		if vm.Image == image.Small {
			state, arch = checkFault, archOf(vm)
		}
	}
	if base, ok, err := image.Lookup(home, image.Small, arch); home != "" && err == nil && ok {
		return Check{name, checkOK, base.Path, ""}
	}
	unfit := &image.HostError{}
	for _, program := range smallPrograms {
		if _, err := exec.LookPath(program); err != nil {
			unfit.Missing = append(unfit.Missing, program)
		}
	}
	if len(unfit.Missing) == 0 {
		return Check{name, checkOK, "not built yet; up builds it where it is wanted", ""}
	}
	return check(name, "", unfit, state)
}
