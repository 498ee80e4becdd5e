package castra

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/warm"
	"castra.example/castra/castra/internal/workspace"
)

// bootstrapAll runs the bootstrap of every VM that is due, all at once, and
// tells how many ran. All faults are joined.
func (u *upRun) bootstrapAll(ctx context.Context) (int, error) {
	var ran atomic.Int64
	err := parallel(u.names, func(vm string) error {
		did, err := u.bootstrap(ctx, u.plans[vm])
		if did {
			ran.Add(1)
		}
		return err
	})
	return int(ran.Load()), err
}

// bootstrap runs one VM's bootstrap if it is due, and records how it ended.
func (u *upRun) bootstrap(ctx context.Context, p vmPlan) (bool, error) {
	r, _ := u.session.get(p.Name)
	plan, digest, err := u.bootstrapPlan(p)
	if err != nil {
		return false, &VMError{Op: "up", VM: p.Name, Phase: "bootstrap", Err: err}
	}
	due, reason := bootstrapDue(plan, digest, r.Bootstrap)
	if !due && r.Start.Stage == string(warm.Bootstrapped) && r.Bootstrap.Log == "" {
		reason = "restored from a template"
	}
	action := "skip"
	if due {
		action = "run"
	}
	u.events.Emit(event.BootstrapPlanned{VM: p.Name, Mode: plan.Mode, Action: action, Reason: reason, Script: plan.Script})
	if !due {
		return false, nil
	}
	if err := u.ws.MakeDir(filepath.Dir(plan.LogPath)); err != nil {
		return false, &VMError{Op: "up", VM: p.Name, Phase: "bootstrap", Err: err}
	}
	to, err := login(r)
	if err != nil {
		return false, &VMError{Op: "up", VM: p.Name, Phase: "bootstrap", Err: err}
	}
	// Recorded as failed until it is known to have ended well: a killed up must not pass for a success.
	r.Health = "bootstrapping"
	r.Bootstrap = workspace.Bootstrap{Digest: digest, Outcome: "failed", Error: "it did not end", Log: plan.LogPath}
	if err := u.session.put(r); err != nil {
		return false, err
	}
	plan.Artifact = digest
	result, err := bootstrap.Run(ctx, plan, to, u.events.Emit)
	r.Bootstrap = workspace.Bootstrap{Digest: digest, Outcome: result.Outcome, Log: plan.LogPath, Ended: time.Now().UTC()}
	r.Health = "ready"
	if err != nil {
		r.Health = "bootstrap failed"
		r.Bootstrap.Outcome, r.Bootstrap.Step, r.Bootstrap.Error = "failed", failedStep(err), err.Error()
		err = &VMError{Op: "up", VM: p.Name, Phase: "bootstrap", Err: err, Next: "mage exec " + p.Name + " to look at it; mage up runs the bootstrap again"}
	}
	if putErr := u.session.put(r); err == nil {
		err = putErr
	}
	if err == nil {
		err = u.saveBootstrapped(ctx, p, plan)
	}
	return true, err
}

// saveBootstrapped keeps a VM whose first bootstrap has just ended well, where that is one which a later start can be spared.
func (u *upRun) saveBootstrapped(ctx context.Context, p vmPlan, plan bootstrap.Plan) error {
	digest, err := dueDigest(plan)
	if _, fresh := u.fresh.Load(p.Name); err != nil || digest == "" || !fresh {
		return err
	}
	return u.save(ctx, p, nil, warm.Bootstrapped, digest)
}

// dueDigest is that of a bootstrap that a template may have run already; "" where it runs at every up, or never.
func dueDigest(plan bootstrap.Plan) (string, error) {
	if plan.Mode != "auto" || plan.Script == "" {
		return "", nil
	}
	return plan.Digest()
}

// dueDigestOf is the dueDigest of what a bootstrap of the VM would do now.
func dueDigestOf(l workspace.Layout, p vmPlan, mode string) (string, error) {
	b, err := bootstrapOf(l, p, mode)
	if err != nil {
		return "", err
	}
	return dueDigest(b)
}

// bootstrapDue decides by mode, and by what ran before in this run of the VM.
func bootstrapDue(p bootstrap.Plan, digest string, last workspace.Bootstrap) (bool, string) {
	done := slices.Contains([]string{"applied", "noop"}, last.Outcome)
	switch {
	case p.Script == "":
		return false, "no script"
	case p.Mode == "skip":
		return false, "mode skip"
	case p.Mode == "always":
		return true, "mode always"
	case last.Outcome == "failed":
		return true, "the last run failed"
	case done && last.Digest == digest:
		return false, "done already"
	case done:
		return true, "script, payload, env or verification changed"
	default:
		return true, "fresh overlay"
	}
}

func (u *upRun) bootstrapPlan(p vmPlan) (b bootstrap.Plan, digest string, err error) {
	if b, err = bootstrapOf(u.ws.Layout, p, u.modes[p.Name]); err != nil {
		return b, "", err
	}
	b.Run, b.LogPath = runID(), u.ws.BootstrapLog(p.Name, time.Now())
	digest, err = b.Digest()
	return b, digest, err
}

// bootstrapOf is what a bootstrap of the VM would do, but for what is each run's own.
func bootstrapOf(l workspace.Layout, p vmPlan, mode string) (bootstrap.Plan, error) {
	b := p.Bootstrap
	key, err := digestKey(l)
	return bootstrap.Plan{
		Key: key,
		VM:  p.Name, Mode: mode, Script: b.Script, Payload: b.Payload, RemoteDir: b.RemoteDir, Env: b.Env,
		VerifyCommand: b.VerifyCommand, VerifyPath: b.VerifyPath, HandshakeTimeout: waitLimit(p),
	}, err
}

// runID tells one bootstrap run from all others.
func runID() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails (Go 1.24)
	return hex.EncodeToString(b)
}

func failedStep(err error) string {
	var step *bootstrap.StepError
	if errors.As(err, &step) {
		return step.Step
	}
	return ""
}
