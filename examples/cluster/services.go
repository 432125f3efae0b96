package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
)

const (
	etcdPort     = 2379
	etcdPeerPort = 2380
	waitMost     = 30 * time.Second // for whatever must come
	pollEvery    = 20 * time.Millisecond
	getMost      = 2 * time.Second // for an answer to one poll
)

// etcd keeps the membership: one process on a host of its own.
type etcd struct {
	host *host
	dir  string
	cmd  *exec.Cmd
}

func startEtcd(ctx context.Context, h *host, dir string) (*etcd, error) {
	e := &etcd{host: h, dir: dir}
	return e, e.start(ctx)
}

func (e *etcd) url() string { return "http://" + e.host.addr(etcdPort) }

func (e *etcd) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(e.dir, "etcd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	peer := "http://" + e.host.addr(etcdPeerPort)
	e.cmd = exec.Command("etcd", "--name", "etcd", "--data-dir", filepath.Join(e.dir, "etcd"), //nolint:noctx // ended by kill
		"--listen-client-urls", e.url(), "--advertise-client-urls", e.url(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "etcd="+peer,
		"--log-level", "warn", "--logger", "zap")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.host.run(e.cmd.Start); err != nil {
		return fmt.Errorf("etcd (Debian: apt-get install etcd-server): %w", err)
	}
	return until(ctx, "etcd is healthy", func() bool {
		said, err := get(ctx, e.url()+"/health")
		return err == nil && strings.Contains(said, "true")
	})
}

// kill ends it as a crash would.
func (e *etcd) kill() {
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Process.Kill() // it may have been killed before
		_ = e.cmd.Wait()         // says that it was killed
	}
}

// database is the PostgreSQL server of the cluster and, until it is promoted, the
// synchronous standby behind it, on one host.
type database struct {
	host    *host
	primary *pgtest.Server
	standby *pgtest.Server // nil if there is none
	retired *pgtest.Server // the primary before the standby became one
}

const standbyName = "standby"

// startDatabase starts a server and, if wanted, a standby which every commit waits for.
func startDatabase(h *host, dir string, withStandby bool) (*database, error) {
	d := &database{host: h}
	access := filepath.Join(dir, "pg_hba.conf")
	const everybody = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(access, []byte(everybody), 0o644)); err != nil { //nolint:gosec // the server runs as another user
		return nil, err
	}
	settings := []string{"listen_addresses = '127.0.0.1," + h.ip + "'", "hba_file = '" + access + "'", "max_connections = 200"}
	primary := settings
	if withStandby {
		primary = append(primary, "synchronous_standby_names = '"+standbyName+"'")
	}
	return d, h.run(func() (err error) {
		if d.primary, err = pgtest.New(primary...); err != nil || !withStandby {
			return err
		}
		d.standby, err = d.primary.NewStandby(standbyName, append(settings, "synchronous_standby_names = ''", "wal_retrieve_retry_interval = '100ms'")...)
		return err
	})
}

// addrs are the servers, the primary first.
func (d *database) addrs() []string {
	addrs := []string{d.host.addr(d.primary.Port)}
	for _, other := range []*pgtest.Server{d.standby, d.retired} {
		if other != nil {
			addrs = append(addrs, d.host.addr(other.Port))
		}
	}
	return addrs
}

// url is the connection string for whoever reaches the servers under these addresses.
func databaseURL(addrs []string) string {
	return "postgres://postgres@" + strings.Join(addrs, ",") + "/postgres?sslmode=disable&connect_timeout=3"
}

// crash ends the primary without a word.
func (d *database) crash() error {
	return d.host.run(func() error { return d.primary.Control("stop", "--mode", "immediate") })
}

func (d *database) start() error {
	return d.host.run(func() error { return d.primary.Control("start") })
}

// promote crashes the primary and makes the standby one.
func (d *database) promote() error {
	if d.standby == nil {
		return errors.New("there is no standby")
	}
	if err := d.crash(); err != nil {
		return err
	}
	if err := d.host.run(func() error { return d.standby.Control("promote", "--wait") }); err != nil {
		return err
	}
	d.primary, d.standby, d.retired = d.standby, nil, d.primary
	return nil
}

func (d *database) close() {
	for _, server := range []*pgtest.Server{d.standby, d.primary, d.retired} {
		if server != nil {
			_ = d.host.run(func() error { server.Close(); return nil }) // it has no error
		}
	}
}

// until asks again and again whether something is so, for as long as waitMost.
func until(ctx context.Context, what string, so func() bool) error {
	for end := clockd.Mono() + int64(waitMost); !so(); {
		now := clockd.Mono()
		if now > end {
			return fmt.Errorf("not within %v: %s", waitMost, what)
		}
		if err := clockd.SleepUntil(ctx, now+int64(pollEvery)); err != nil {
			return err
		}
	}
	return nil
}

// get returns the body of a 200 that comes soon.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, getMost)
	defer cancel()
	return lab.Get(ctx, url)
}

// stop and cont freeze a process and let it run again.
func stop(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGSTOP) }
func cont(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGCONT) }
