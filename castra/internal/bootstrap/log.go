package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"castra.example/castra/castra/event"
)

const logVersion = 1

// logFile is the log of a run. Of the environment it holds names only.
type logFile struct {
	SchemaVersion int       `json:"schema_version"`
	VM            string    `json:"vm"`
	Run           string    `json:"run"`
	Mode          string    `json:"mode"`
	Started       time.Time `json:"started"`
	Ended         time.Time `json:"ended"`
	ElapsedMS     int64     `json:"elapsed_ms"`
	Outcome       string    `json:"outcome"`
	FailedStep    string    `json:"failed_step,omitempty"`
	Error         string    `json:"error,omitempty"`
	Steps         []Step    `json:"steps"`
	ExitStatus    *int      `json:"exit_status"` // of the script; null where it had none
	Script        string    `json:"script"`
	ScriptSHA256  string    `json:"script_sha256,omitempty"`
	Artifact      string    `json:"artifact,omitempty"` // digest of script, payload, env and verification
	Interpreter   []string  `json:"interpreter,omitempty"`
	Payload       string    `json:"payload,omitempty"`
	RemoteDir     string    `json:"remote_dir"`
	LeftBehind    string    `json:"left_behind,omitempty"` // private directory that could not be removed
	EnvKeys       []string  `json:"env_keys"`
	Output        []string  `json:"output"` // the last lines, redacted
}

// writeLog returns the log's path. A log that cannot be written is a warning:
// what was done in the guest stays done.
func (r *run) writeLog(outcome string, failure *StepError) string {
	if r.plan.LogPath == "" {
		return ""
	}
	ended := time.Now()
	log := logFile{
		SchemaVersion: logVersion, VM: r.plan.VM, Run: r.plan.Run, Mode: r.plan.Mode,
		Started: r.started.UTC(), Ended: ended.UTC(), ElapsedMS: ended.Sub(r.started).Milliseconds(),
		Outcome: outcome, Steps: append([]Step{}, r.steps...), ExitStatus: r.status,
		Script: r.plan.Script, ScriptSHA256: r.script.sha256, Artifact: r.plan.Artifact, Interpreter: r.script.interpreter,
		Payload: r.plan.Payload, RemoteDir: r.plan.RemoteDir, LeftBehind: r.left,
		EnvKeys: append([]string{}, r.plan.keys()...), Output: append([]string{}, r.lastLines()...),
	}
	if failure != nil {
		log.FailedStep, log.Error = failure.Step, failure.Err.Error()
	}
	if err := saveLog(r.plan.LogPath, log); err != nil {
		r.emit(event.Message{VM: r.plan.VM, Level: "warning", Text: fmt.Sprintf("write bootstrap log: %v", err)})
		return ""
	}
	return r.plan.LogPath
}

func saveLog(path string, log logFile) error {
	data, err := json.MarshalIndent(log, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Not renameio.WriteFile, which keeps the mode of a file that is there.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if _, err := file.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename last through a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
