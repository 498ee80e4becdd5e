package small

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
)

// attempt is one way to packages: with lists as they are, or after fetching new ones.
type attempt struct {
	apt    apt
	update bool
}

// attempts lists the ways in the order they are tried. The system's lists are there already on most hosts, and those of an
// earlier build serve too. Only where they do not, because they are empty or out of date, private ones are fetched; that needs
// no root, and is the only way to packages of an architecture that the system does not have.
func (b *builder) attempts(arch string) []attempt {
	system := apt{host: b.host, arch: arch}
	private := apt{host: b.host, arch: arch, private: filepath.Join(b.guests, aptDir)}
	if arch != runtime.GOARCH {
		private.private += "-" + arch
	}
	switch {
	case b.updated[arch]:
		return []attempt{{apt: private}}
	case arch == runtime.GOARCH:
		return []attempt{{apt: system}, {apt: private, update: true}}
	}
	return []attempt{{apt: private}, {apt: private, update: true}}
}

// through runs ask with one way after the other, until one serves. The error is that of the last, with what went wrong first.
func (b *builder) through(ctx context.Context, arch string, ask func(apt) error) error {
	var first, err error
	for _, way := range b.attempts(arch) {
		if err = b.try(ctx, way, ask); err == nil || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
	}
	if first.Error() != err.Error() {
		return fmt.Errorf("%w (before new package lists: %s)", err, first.Error())
	}
	return err
}

// try goes one way. An update counts as failed only where what it brought does not serve: a host may have other sources that
// cannot be reached. What the packages then lack is the reason where it got any.
func (b *builder) try(ctx context.Context, way attempt, ask func(apt) error) error {
	if err := way.apt.prepare(); err != nil {
		return err
	}
	if !way.update {
		return ask(way.apt)
	}
	b.progress("updating package lists")
	updateErr := way.apt.update(ctx)
	if ctx.Err() != nil {
		return updateErr
	}
	err := ask(way.apt)
	switch missing := new(HostError); {
	case err == nil:
		b.updated[way.apt.arch] = true
		return nil
	case updateErr == nil:
		return err
	case errors.As(err, &missing):
		return fmt.Errorf("%w (%s)", err, updateErr.Error())
	}
	return updateErr
}
