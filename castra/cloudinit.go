package castra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/image"
)

// cloudInitWait waits in the guest until its cloud-init has ended, and lets it tell how. A guest without one has nothing to wait for.
const cloudInitWait = `command -v cloud-init >/dev/null 2>&1 || exit 0
cloud-init status --wait >/dev/null 2>&1 && exit 0
s=$?; LC_ALL=C cloud-init status --long 2>&1; exit $s`

// Exit statuses of cloud-init status (its documentation, "CLI commands"; the second since 23.4).
const (
	cloudInitFailed   = 1
	cloudInitDegraded = 2
)

// CloudInitError says: the guest's cloud-init ended with errors.
type CloudInitError struct{ Said string }

func (e *CloudInitError) Error() string { return "cloud-init failed: " + e.Said }

// Hint says what to do next.
func (e *CloudInitError) Hint() string {
	return "correct user_data, where that is at fault; the guest's /var/log/cloud-init.log and cloud-init-output.log tell more, and what it printed is in mage logs"
}

// configured waits until the guest has been configured by its own cloud-init: only then is it as castra.toml says.
func (u *upRun) configured(ctx context.Context, p vmPlan, client *guest.Client) error {
	if p.Image == image.Small { // has none
		return nil
	}
	limit := waitLimit(p)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("cloud-init has not ended within %s", limit))
	defer cancel()
	var said bytes.Buffer
	var err error
	u.during(p.Name, "cloud-init", limit, func() {
		err = client.Run(ctx, guest.Command{Line: cloudInitWait, Stdout: &capped{&said}})
	})
	var exit *guest.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.As(err, &exit):
		return context.Cause(ctx)
	case errors.As(err, &exit) && exit.Status == cloudInitFailed:
		return &CloudInitError{brief(said.String())}
	case errors.As(err, &exit) && exit.Status == cloudInitDegraded:
		u.warn(p.Name, "cloud-init ended with warnings: "+brief(said.String()), "mage exec "+p.Name+` "cloud-init status --long" tells all`)
		return nil
	default:
		return fmt.Errorf("wait for cloud-init: %w", err)
	}
}

// brief is what cloud-init said in one line.
func brief(said string) string {
	const most = 600
	s := strings.Join(strings.Fields(said), " ")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}

// capped takes what fits and drops the rest: a guest may say without end.
type capped struct{ *bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	const most = 64 << 10
	c.Buffer.Write(p[:min(len(p), max(most-c.Len(), 0))])
	return len(p), nil
}
