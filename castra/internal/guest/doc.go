// Package guest speaks SSH to one guest: it waits until the guest lets us in,
// runs commands and copies files.
//
//	c, err := guest.Wait(ctx, guest.Login{Addr: "127.0.0.1:40022", User: "root", PrivateKey: pem, HostKey: line}, nil)
//	err = c.Run(ctx, guest.Command{Line: "uname -a", Stdout: os.Stdout})
//
// The host key is pinned, only the given key is offered, and nothing of the
// user's is read: no agent, no ~/.ssh/config, no known_hosts. The guest is not
// trusted: whatever it answers, or does not, every call ends with its context,
// and a download writes nothing outside its target.
package guest
