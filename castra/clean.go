package castra

import "context"

// Clean removes the workspace's cached images, overlays, logs, pidfiles and
// session, and tells the bytes given back. While VMs run it is a
// *RunningError; with Options.Force it takes them down first. What Castra did
// not make stays, and so do the workspace's key and the images shared by all
// projects.
func (p *Project) Clean(ctx context.Context) error {
	_, err := p.prune(ctx, "clean", PruneOptions{})
	return err
}
