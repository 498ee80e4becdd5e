// Package small builds the small guest: a Linux of about 25 MB, made from Debian's packages as an ordinary user and without
// mounting anything, that answers SSH seconds after it is launched.
//
// Build makes it once and keeps it under <home>/guests; Lookup finds one already made. The guest boots through BIOS from its
// own disk, or faster from Kernel, Initrd and Append with the same disk attached first. It takes host name, host key and
// authorized keys from a NoCloud seed (label cidata), its address from DHCP, and ends at the power button.
//
// What runs inside is in root/: readable scripts that are copied into the guest as they are.
package small
