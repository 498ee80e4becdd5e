package qemutest

import (
	"fmt"
	"os"
	"path/filepath"
)

// UEFI firmware of the fakes, in the directory that they name at -L help. Its
// descriptors come before those of this computer, so that tests do not depend
// on what is installed.
const (
	descriptorDir = "firmware"
	descriptorFor = "00-castra-fake-%s.json"
)

var uefi = []struct {
	target, machine, code, vars string
	size                        int64 // of each, bytes
}{
	{"x86_64", "pc-*", "edk2-x86_64-code.fd", "edk2-i386-vars.fd", 64 << 10},
	{"aarch64", "virt-*", "edk2-aarch64-code.fd", "edk2-arm-vars.fd", 64 << 20},
}

func writeFirmware(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, descriptorDir), 0o700); err != nil {
		return err
	}
	for _, u := range uefi {
		code, vars := filepath.Join(dir, u.code), filepath.Join(dir, u.vars)
		for path, text := range map[string]string{code: "fake UEFI firmware\n", vars: "fake UEFI variables\n"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			if err := os.Truncate(path, u.size); err != nil {
				return err
			}
		}
		text := fmt.Sprintf(`{"interface-types":["uefi"],"features":[],"targets":[{"architecture":%q,"machines":[%q]}],"mapping":{"device":"flash",`+
			`"executable":{"filename":%q,"format":"raw"},"nvram-template":{"filename":%q,"format":"raw"}}}`, u.target, u.machine, code, vars)
		if err := os.WriteFile(filepath.Join(dir, descriptorDir, fmt.Sprintf(descriptorFor, u.target)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
