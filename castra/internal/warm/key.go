package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// format is of the store and of what is saved in it. A higher one passes over
// every older template.
const format = 1

// Stage of a guest that a template holds.
type Stage string

// The two stages.
const (
	Ready        Stage = "ready"        // let us in, nothing of bootstrap yet; belongs to a role
	Bootstrapped Stage = "bootstrapped" // bootstrap has run; belongs to one VM
)

// Ingredients are all that shapes the saved state. A difference in any of them
// is another template.
type Ingredients struct {
	Stage Stage  `json:"stage"`
	Owner string `json:"owner"` // role, or VM where Bootstrapped

	// Digests "sha256:…", "" where there is none.
	BaseImage string `json:"base_image"`
	Kernel    string `json:"kernel"`
	Initrd    string `json:"initrd"`
	Append    string `json:"append"`
	// BasePath is where the base image is: the template's disk names it as what it writes on top of.
	BasePath string `json:"base_path"`

	OverlayFormat string `json:"overlay_format"`
	OverlayBytes  int64  `json:"overlay_bytes"` // virtual size

	// Machine and CPU are as QEMU resolves them.
	Arch        string `json:"arch"`
	Machine     string `json:"machine"`
	CPU         string `json:"cpu"`
	Accelerator string `json:"accelerator"`
	HostCPU     string `json:"host_cpu"`
	Firmware    string `json:"firmware"` // bios, uefi, or "" where a kernel is booted
	// FirmwareCode is the digest of the file that holds UEFI firmware.
	FirmwareCode string `json:"firmware_code"`
	CPUs         int    `json:"cpus"`
	MemoryMiB    int    `json:"memory_mib"`
	// Devices are QEMU's device options in order, without host paths and host
	// ports.
	Devices []string `json:"devices"`
	QEMU    string   `json:"qemu"` // version, build, digest of the binary

	// Of the seed; keys are the public ones.
	User          string `json:"user"`
	AuthorizedKey string `json:"authorized_key"`
	HostKey       string `json:"host_key"`
	UserData      string `json:"user_data"` // digest of the project's own part; "" where there is none

	// Where Bootstrapped: the digest of what has run, and the directory in the guest that it ran in.
	Bootstrap string `json:"bootstrap"`
	RemoteDir string `json:"remote_dir"`
}

// Key names the template of these ingredients: 32 hexadecimal digits.
func (i Ingredients) Key() string {
	b, err := json.Marshal(i.normal())
	if err != nil {
		panic(err) // strings and numbers always have a JSON
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "castra template %d\n%s", format, b))
	return hex.EncodeToString(sum[:16])
}

// normal is i without the difference of no devices and nil devices.
func (i Ingredients) normal() Ingredients {
	if i.Devices == nil {
		i.Devices = []string{}
	}
	return i
}

// changed lists the JSON names of what differs, in the order of the struct.
func changed(a, b Ingredients) []string {
	var names []string
	va, vb := reflect.ValueOf(a.normal()), reflect.ValueOf(b.normal())
	for n := range va.NumField() {
		if !reflect.DeepEqual(va.Field(n).Interface(), vb.Field(n).Interface()) {
			names = append(names, va.Type().Field(n).Tag.Get("json"))
		}
	}
	return names
}

// reason says for people what changed, with at most three names.
func reason(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more changed", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ") + " changed"
}

// Names of directories in the store. What has another name is not ours.
var (
	keyName   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	newName   = regexp.MustCompile(`^\.new-[0-9a-f]{16}$`)
	goneName  = regexp.MustCompile(`^\.gone-[0-9a-f]{16}$`)
	asideName = regexp.MustCompile(`^\.bad-([0-9a-f]{32})-([0-9]{1,19})$`)
	factsName = regexp.MustCompile(`^[0-9a-f]+$`)
	tempName  = regexp.MustCompile(`^\.tmp-[0-9]+$`) // of writeJSON
)
