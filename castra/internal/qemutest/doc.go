// Package qemutest is a fake QEMU and a fake guest for tests.
//
// A test package hands its TestMain over and installs the fakes where a test
// wants them:
//
//	func TestMain(m *testing.M) { qemutest.Main(m) }
//
//	dir := qemutest.Install(t)
//	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
//
// The directory holds links named qemu-system-x86_64, qemu-system-aarch64 and
// qemu-img to the test binary, which becomes that program when it is run under
// such a name. The fake QEMU locks its pidfile, serves QMP, binds its forwards
// and, once "booted", answers SSH on the forward to guest port 22 with the host
// key and the logins of its seed. What it does wrong is chosen through
// CASTRA_FAKE_QEMU, see [Personality].
//
// It can be saved and restored as QEMU can: memory in a memfd, the state over
// a unix socket and from an inherited descriptor. A restored guest has the host
// key, the logins, the hostname, the clock and the files in its home of the
// saved one, and is dead where its memory file is not the one that was saved.
// [Guests] tells what became of the guests.
//
// Commands run in a shell of this computer, with PATH led by a sudo that runs
// what it is given, and a hostname and a date that set nothing. A command line
// that names a path of the system that castra writes to in a guest is answered
// and not run: see [Guest].
//
// [SSHServer] is the guest's SSH side alone.
package qemutest
