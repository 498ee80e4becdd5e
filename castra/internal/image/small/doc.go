// Package small builds the small guest: a Linux of about 25 MB (40 MB for arm64, whose kernel is not compressed), made from the
// packages of a Debian or Ubuntu host as an ordinary user and without mounting anything, that answers SSH seconds after it is
// launched.
//
// BuildFor makes it once and keeps it under <home>/guests; LookupFor finds one already made. Packages of an architecture that is
// not the host's are found and fetched with package lists of Castra's own; what the system and its dpkg know stays as it is.
//
// The guest boots from its own disk, through UEFI (systemd-boot) and on amd64 also through BIOS (syslinux), or faster from Kernel,
// Initrd and Append with the same disk attached first. It takes host name, host key and authorized keys from a NoCloud seed (label
// cidata), its address from DHCP, and ends at the power button. Its root file system grows at boot to what a larger disk has.
//
// What runs inside is in root/: readable scripts that are copied into the guest as they are.
package small
