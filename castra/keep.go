package castra

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/image"
)

// keepTries is how often images may be removed between being found and kept.
const keepTries = 5

// keepImages keeps prunes from what the VMs will run from, until release.
// What has gone since s was found is made or fetched once more. The lock on
// the workspace is held: what waits for it holds up no prune.
func (p *Project) keepImages(ctx context.Context, s *site, vms []config.VM) (release func(), err error) {
	if !s.ofHome(p.home) {
		return func() {}, nil
	}
	for range keepTries {
		release, err = image.Keep(ctx, p.home)
		if err != nil || s.present() {
			break
		}
		release()
		if *s, err = p.site(ctx, "up", vms, true); err != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(release), nil
}

// ofHome tells that one of the images may be pruned.
func (s site) ofHome(home string) bool {
	for _, img := range s.images {
		if home != "" && strings.HasPrefix(img.Path, home+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// present tells that all images are there still.
func (s site) present() bool {
	for _, img := range s.images {
		if _, err := os.Lstat(img.Path); err != nil {
			return false
		}
	}
	return true
}
