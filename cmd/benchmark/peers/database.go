package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// startTimeout is how long a database may take until it answers.
const startTimeout = 30 * time.Second

// database is a server of our own: its files and its socket are in a folder that
// nobody else knows, and it listens on no network.
type database struct {
	cmd  *exec.Cmd
	stop os.Signal // what it takes as "end now, in good order"
}

// startDatabase returns when ping says that the database answers.
func startDatabase(ctx context.Context, cmd *exec.Cmd, stop os.Signal, ping func() error) (*database, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // it must not outlive us, however we end
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &database{cmd: cmd, stop: stop}
	deadline := clockd.Mono() + int64(startTimeout)
	for {
		err := ping()
		if err == nil {
			return d, nil
		}
		if clockd.Mono() > deadline {
			return nil, errors.Join(fmt.Errorf("%s does not answer: %w", cmd.Path, err), d.close())
		}
		if err := clockd.SleepUntil(ctx, clockd.Mono()+int64(20*time.Millisecond)); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
}

func (d *database) close() error {
	return errors.Join(d.cmd.Process.Signal(d.stop), d.cmd.Wait())
}

// asUser lets a command run as that user if we are root, and gives it the folder:
// some servers refuse to run as root.
func asUser(cmd *exec.Cmd, name, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Dir = dir
	return os.Chown(dir, int(uid), int(gid))
}
