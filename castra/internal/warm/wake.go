package warm

import (
	"bytes"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"time"

	"castra.example/castra/castra/internal/guest"
)

// A guest that is restored has the clock of when it was saved and, if it is
// restored twice, the same random numbers twice. Both are the kernel's, and to
// set them takes system calls for which many a guest has no command: busybox
// cannot make the kernel draw new random numbers. So a program of some 200
// bytes is put into the guest's memory before it is saved, and run once after
// each restore.

// message is what the program reads: see clock_settime(2), random(4) and
// sethostname(2).
type message struct {
	Sec, Nsec int64
	Bits      int32 // of entropy, for RNDADDENTROPY
	Size      int32
	Random    [256]byte
	HostLen   int64
	Host      [64]byte
}

// steps names what the program ends with when it fails.
var steps = map[int]string{1: "hear what time it is", 2: "set the clock", 3: "take entropy", 4: "draw new random numbers", 5: "take its hostname",
	6: "write its name down"}

// executable is the program as a file: an ELF header, one segment, the code
// (ELF specification 1.2, figures 1-3 and 2-1).
func executable() ([]byte, error) {
	code, err := machineCode()
	if err != nil {
		return nil, err
	}
	const base, headers = 0x400000, 64 + 56
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	head := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	size := uint64(headers + len(code))
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000}
	var b bytes.Buffer
	for _, part := range []any{head, segment, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// place takes the program into a directory that is in memory and lets programs
// run. Status 1, for want of input, shows that it does. Before, what the guest
// has not written to its disk is written, and the page cache is dropped: it
// would only make the template larger.
const place = `
umask 077
sync
echo 3 >/proc/sys/vm/drop_caches
last=
for dir in /run /dev/shm /var/lib; do
	mkdir -p "$dir/castra" || continue
	file=$dir/castra/wake
	if [ -z "$last" ]; then cat >"$file"; else cp "$last" "$file" && rm -f "$last"; fi || continue
	chmod 700 "$file" || continue
	last=$file
	"$file" </dev/null
	[ $? -eq 1 ] && echo "$file" && exit 0
done 2>/dev/null
echo "no directory of the guest lets a program run" >&2
exit 1`

// Prepare makes a guest ready to be saved, and tells where the waking program
// is. User is who logs in; anyone but root must be allowed sudo without a
// password. A guest that cannot be woken must not be restored with its memory.
func Prepare(ctx context.Context, client *guest.Client, user string) (string, error) {
	program, err := executable()
	if err != nil {
		return "", err
	}
	var out, said bytes.Buffer
	err = client.Run(ctx, guest.Command{Line: asRoot(user, guest.Sh(place)), Stdin: bytes.NewReader(program), Stdout: &out, Stderr: &said})
	if err != nil {
		return "", fmt.Errorf("place the waking program: %w %s", err, firstLine(said.String()))
	}
	file := strings.TrimSpace(out.String())
	if !path.IsAbs(file) || path.Base(file) != "wake" {
		return "", fmt.Errorf("place the waking program: the guest said %.80q", file)
	}
	return file, nil
}

// Wake tells a restored guest what time it is and who it is, and makes its
// kernel draw new random numbers. The clock is late by what the command takes
// to begin: under 0.1 s. Where the guest was saved under another name than
// hostname, what it has on disk of that is changed too, and its machine ID.
func Wake(ctx context.Context, client *guest.Client, user, program, saved, hostname string) error {
	m := message{Size: int32(len(message{}.Random)), HostLen: int64(len(hostname))}
	m.Bits = m.Size * 8
	if copy(m.Host[:], hostname) < len(hostname) {
		return fmt.Errorf("hostname %s is longer than %d bytes", hostname, len(m.Host))
	}
	_, _ = rand.Read(m.Random[:]) // never fails (Go 1.24)
	line := "exec " + guest.Quote(program)
	if saved != hostname {
		id := make([]byte, 16)
		_, _ = rand.Read(id)
		line = guest.Sh(rename, program, saved, hostname, hex.EncodeToString(id))
	}
	err := client.Run(ctx, guest.Command{Line: asRoot(user, line), Stdin: &lateReader{m: m}})
	var exit *guest.ExitError
	if errors.As(err, &exit) && steps[exit.Status] != "" {
		return fmt.Errorf("wake the guest: it could not %s", steps[exit.Status])
	}
	if err != nil {
		return fmt.Errorf("wake the guest: %w", err)
	}
	return nil
}

// rename runs the waking program, and makes a guest that was saved under one name go by another for good. $1 the program, $2 the
// old name, $3 the new one, $4 a machine ID. It starts no other program: each costs an emulated guest 20 ms.
const rename = `
"$1" || exit
echo "$3" >/etc/hostname || exit 6
[ ! -s /etc/machine-id ] || echo "$4" >/etc/machine-id
[ -f /etc/hosts ] || exit 0
all=
while IFS= read -r rest || [ -n "$rest" ]; do
	line=
	while :; do
		case $rest in
		*"$2"*) before=${rest%%"$2"*} rest=${rest#*"$2"} ;;
		*) break ;;
		esac
		name=$3
		case $before in *[A-Za-z0-9-]) name=$2 ;; esac
		case $rest in [A-Za-z0-9-]*) name=$2 ;; esac
		line=$line$before$name
	done
	all="$all$line$rest
"
done </etc/hosts
printf %s "$all" >/etc/hosts || exit 6`

// lateReader asks what time it is when the message is sent, and not before.
type lateReader struct {
	m    message
	rest *bytes.Reader
}

func (r *lateReader) Read(p []byte) (int, error) {
	if r.rest == nil {
		now := time.Now()
		r.m.Sec, r.m.Nsec = now.Unix(), int64(now.Nanosecond())
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, r.m); err != nil {
			return 0, err
		}
		r.rest = bytes.NewReader(b.Bytes())
	}
	return r.rest.Read(p)
}

func asRoot(user, line string) string {
	if user == "root" {
		return line
	}
	return "exec sudo -n " + strings.TrimPrefix(line, "exec ")
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return first
}
