// Package warm keeps warm-start templates: the saved disk, and perhaps the
// memory, of a guest that was ready, which later guests are restored from. All
// of it is cache: a template that is missing, damaged or of other ingredients
// costs a cold boot and nothing else.
//
// A store is one directory, readable by its owner alone, since a template
// holds what bootstrap put in the guest:
//
//	templates/<key>/manifest.json   ingredients, and size and digest of each file; its mtime is the last use
//	templates/<key>/disk.qcow2      the overlay of the saved guest
//	templates/<key>/ram, state      its memory (sparse) and devices, or neither
//	templates/<key>/seen.json       identities of the files when their digests were last checked, and in which boot
//	templates/.new-<random>/        being made; its file lock is locked meanwhile
//	templates/.bad-<key>-<time>/    set aside, with the reason in why.txt
//	templates/.gone-<random>/       being removed
//	templates/digests/, facts/      what was found out about files and programs of the host
//
// A template comes into being, and goes, by one rename. Who uses one holds a
// shared lock on its manifest, which is therefore never replaced.
package warm
