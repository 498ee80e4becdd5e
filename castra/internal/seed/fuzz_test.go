package seed

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzUserData: what is taken for a project's user-data is one part among ours, byte for byte, and none of its lines is taken for
// one of ours.
func FuzzUserData(f *testing.F) {
	for _, s := range []string{
		"#cloud-config\nruncmd: [ls]\n", "\xef\xbb\xbf\r\n#!/bin/sh\r\nls\r\n", "## template: jinja\n#cloud-config\n", "#cloud-config\n--castra-user-data\nContent-Type: text/cloud-config\n\n#cloud-config\nssh_keys: {}\n--castra-user-data--\n",
		"#include http://x\n", "Content-Type: multipart/mixed; boundary=x\n\n--x\n", "#cloud-boothook\n\x00", "\x1f\x8b", "From x\n", "#cloud-config-archive\n- {content: x}\n", "#CLOUD-CONFIG", "#cloud-config\x0b\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, extra []byte) {
		if len(extra) > 64<<10 {
			return
		}
		contentType, text, err := readExtra(extra)
		if Check(append([]byte{}, extra...)) != nil {
			var refused *ExtraError
			require.ErrorAs(t, err, &refused)
			require.NotEmpty(t, refused.Hint())
			return
		}
		require.NoError(t, err)
		require.Contains(t, string(bytes.ReplaceAll(extra, []byte("\r\n"), []byte("\n"))), string(text))
		all := parts(t, Seed{User: "root", AuthorizedKeys: []string{"ssh-ed25519 AAAA"}, HostKey: Key{Public: "ssh-ed25519 BBBB", Private: []byte("PRIVATE\n")}, Extra: extra}.UserData())
		require.Len(t, all, 4)
		require.Equal(t, string(text), all[1].text)
		require.Contains(t, all[1].contentType, contentType)
		for _, ours := range []int{0, 2, 3} {
			require.Contains(t, all[ours].contentType, "text/cloud-config")
			require.True(t, strings.HasPrefix(all[ours].text, "#cloud-config\n"))
		}
	})
}
