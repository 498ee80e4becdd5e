package bootstrap

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// script is what is known of the script before it goes anywhere.
type script struct {
	path        string
	size        int64
	sha256      string
	interpreter []string // with its one argument, if any
}

const shebangMax = 4 << 10 // bytes of a first line that is still one

// inspect reads the script once. Its mode does not matter: the guest runs the
// interpreter, so neither its exec bit nor a noexec mount is in the way.
func inspect(path string) (script, error) {
	s := script{path: path}
	file, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return s, err
	case !info.Mode().IsRegular():
		return s, fmt.Errorf("script %s: is not a file", path)
	case info.Size() == 0:
		return s, fmt.Errorf("script %s: is empty", path)
	}
	hash := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(file, hash), shebangMax)
	first, err := in.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return s, fmt.Errorf("read script %s: %w", path, err)
	}
	line := strings.TrimSuffix(string(first), "\n")
	if strings.HasSuffix(line, "\r") {
		return s, &LineEndError{Script: path}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return s, fmt.Errorf("read script %s: %w", path, err)
	}
	s.interpreter, s.size = interpreter(line), info.Size()
	s.sha256 = hex.EncodeToString(hash.Sum(nil))
	return s, nil
}

// interpreter reads a first line as Linux does: one word, and all the rest as
// one argument.
func interpreter(line string) []string {
	rest, found := strings.CutPrefix(line, "#!")
	rest = strings.Trim(rest, " \t")
	if !found || rest == "" {
		return []string{"sh"}
	}
	word, argument := rest, ""
	if i := strings.IndexAny(rest, " \t"); i > 0 {
		word, argument = rest[:i], strings.Trim(rest[i:], " \t")
	}
	if argument == "" {
		return []string{word}
	}
	return []string{word, argument}
}

// programs are those the guest must have to run the script.
func (s script) programs() []string {
	word := s.interpreter[0]
	programs := []string{word}
	if strings.HasSuffix(word, "/env") && len(s.interpreter) == 2 {
		if name := s.interpreter[1]; !strings.ContainsAny(name, " \t=") && !strings.HasPrefix(name, "-") {
			programs = append(programs, name)
		}
	}
	return programs
}
