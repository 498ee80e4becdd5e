package config

import "time"

// Project is one castra.toml, checked and resolved.
type Project struct {
	File      string // absolute, symlinks of its directory resolved
	Synthetic bool   // there is no File: Castra made the project up
	Dir       string // the directory of File
	Version   string
	Name      string
	StateDir  string // absolute; "" for the default place
	Warm      bool   // default true: VMs may start from templates, and templates be made of them
	Lifecycle Lifecycle
	VMs       []VM    // replicas expanded, in the order of the file
	Warnings  []Error // what is odd and does not hinder
	Source    []byte  // the file as read; nil where Synthetic
}

// Lifecycle holds the bounds of a shutdown's steps. Defaults: 20 s, 10 s, 5 s.
type Lifecycle struct {
	Graceful  time.Duration // after the ACPI power button
	Terminate time.Duration // after SIGTERM
	Kill      time.Duration // after SIGKILL
}

// VM is one guest-to-be.
type VM struct {
	Name        string // role and index: web-0
	Role        string
	Index       int
	Description string
	BaseImage   string // absolute; "" where none is given
	BaseURL     string // https; "" where none is given
	Checksum    string // of BaseImage or BaseURL, "sha512:…" or "sha256:…"; "" where none is given, never for BaseURL
	DiskMiB     int    // what the guest sees of its disk; 0: as large as the base image
	UserData    string // absolute path of the project's own user-data; "" where none is given
	Arch        string // of the guest, amd64 or arm64; "" for the host's
	Image       string // name of an image; "" where none is given
	Overlay     string // "" for the default; ".castra/…" as written; else absolute
	CPUs        int    // default 2
	MemoryMiB   int    // default 2048
	Forwards    []Forward
	Network     string // user (default) or isolated: no way out of the guest
	Machine     string // QEMU's name; "" for the default
	CPU         string // QEMU's name of a model; "" for the default
	Firmware    string // "" for the image's, or bios, or uefi
	SSH         SSH
	Bootstrap   Bootstrap
	Warm        bool   // default true; never true where the project's is false
	Kernel      string // absolute; "" boots from the disk
	Initrd      string // absolute
	Append      string
	Line        int // of its [[vms]]
}

// Forward is one port of the host that leads to one of the guest.
type Forward struct {
	HostIP    string // default 127.0.0.1
	HostPort  int    // 0: chosen by the kernel at launch
	GuestPort int
	Protocol  string // tcp (default) or udp
	Line      int    // 0 for the forward to SSH that Castra adds
}

// SSH is how to log in to a guest.
type SSH struct {
	User     string // "" for the image's
	Host     string // name or address; "" for the forward on 127.0.0.1
	Identity string // absolute path of a private key; "" for the workspace's
	Port     int    // in the guest, or of Host; default 22
}

// Bootstrap is what is run in a guest once it lets us in.
type Bootstrap struct {
	Mode             string // skip, auto (default) or always
	Script           string // absolute; "" where there is none
	Payload          string // absolute path of a file or directory; "" where there is none
	HandshakeTimeout time.Duration
	RemoteDir        string // in the guest
	Env              map[string]string
	VerifyCommand    string
	VerifyPath       string
}
