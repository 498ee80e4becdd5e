// Package seed makes what a fresh guest is configured by: the workspace's
// ed25519 keys, and the NoCloud disk (an ISO 9660 image labelled cidata, with
// user-data and meta-data) that gives a guest its hostname, the keys that may
// log in, and the SSH host key of this boot. Since the host key comes from us,
// it is known before the first connection.
package seed
