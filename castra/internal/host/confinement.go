package host

// Confinement is what a process is kept from.
type Confinement struct {
	UID             int  // whose rights it has
	Filtered        bool // its system calls go through a seccomp filter
	NoNewPrivileges bool // nothing that it executes gains rights
}
