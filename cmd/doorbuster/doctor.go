package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

// What a server needs of its machine. Below a "least" it cannot work; below a
// "good" it works badly.
const (
	diskFreeLeast = 512 << 20 // bytes: the disk-full alarm and its reserve
	diskFreeGood  = 4 << 30
	syncGood      = 10 * time.Millisecond // of a 4 KiB append, median
	syncRounds    = 50
	filesLeast    = 1024
	filesGood     = 16384
	clockTicks    = 200
	clockLagGood  = 20 * time.Millisecond
)

// inMemory is the type of Linux's file systems in memory, TMPFS_MAGIC of magic.h.
const inMemory = 0x01021994

// finding is what one check found: how bad it is, what it saw, what to do.
type finding struct {
	grade  grade
	seen   string
	advice string // for what is not good
}

type grade int

const (
	good grade = iota
	poor
	broken
)

func (g grade) String() string { return [...]string{"ok", "poor", "FAIL"}[g] }

func failed(err error, advice string) finding { return finding{broken, err.Error(), advice} }

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that this machine can run a server with this configuration",
		Long: `Check that this machine can run a server with this configuration. It only looks:
the data folder is neither made nor opened, what is written to time a sync is gone at
the end, and a PostgreSQL server gets no tables and no rows.`,
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, "listen", "admin", "data", "postgres", "auth", "jwks", "cluster", "advertise", "provider", "etcd", "etcd-ca", "etcd-cert", "etcd-key",
		"etcd-user", "etcd-password", "peers", "cluster-tls-ca", "cluster-tls-cert", "cluster-tls-key", "cluster-names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		idle, refused := cfg.Ignored(s.table)
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		worst := good
		for _, check := range append(checkSettings(idle, refused), checks(cfg)...) {
			f := check.run(cmd.Context(), cfg)
			worst = max(worst, f.grade)
			fmt.Fprintf(table, "%v\t%s\t%s\t%s\n", f.grade, check.name, f.seen, f.advice)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if worst == broken {
			return errors.New("a server would not work here")
		}
		return nil
	}
	return cmd
}

// check is one thing to look at.
type check struct {
	name string
	run  func(context.Context, config.Config) finding
}

func checks(cfg config.Config) []check {
	list := []check{
		{"data folder", checkFolder}, // beside a PostgreSQL server it holds compiled rules
		{"free space", checkSpace},
		{"sync", checkSync},
	}
	if len(cfg.Postgres) > 0 {
		list = list[:1]
	}
	for _, url := range cfg.Postgres {
		list = append(list, check{"postgres", func(ctx context.Context, _ config.Config) finding { return checkPostgres(ctx, url, cfg.Cluster) }})
	}
	if cfg.Cluster {
		list = append(list, clusterChecks(cfg)...)
	}
	if cfg.Auth == config.AuthKeys {
		list = append(list, check{"keys", checkKeys})
	}
	return append(
		list,
		check{"clock", checkClock},
		check{"open files", checkFiles},
		check{"listen", func(ctx context.Context, c config.Config) finding { return checkPort(ctx, c.Listen) }},
		check{"admin", func(ctx context.Context, c config.Config) finding { return checkPort(ctx, c.Admin) }},
	)
}

// checkSettings passes on what was set to no effect, and what a server refuses.
func checkSettings(idle []error, refused error) (list []check) {
	tell := func(grade grade, err error) {
		list = append(list, check{"setting", func(context.Context, config.Config) finding { return finding{grade: grade, seen: err.Error()} }})
	}
	if refused != nil {
		tell(broken, refused)
	}
	for _, err := range idle {
		tell(poor, err)
	}
	return list
}

// checkKeys looks whether anybody could call a server that believes nobody. Which keys a
// journal holds is not known without opening it, but where there is none, there is no key.
func checkKeys(_ context.Context, cfg config.Config) finding {
	f := finding{seen: "auth keys; the journal is not opened to look: doorbuster keys list shows them"}
	if len(cfg.Postgres) == 0 {
		there, err := embedded.Exists(cfg.Data)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed(err, "")
		}
		if !there {
			f = finding{
				grade: poor, seen: "auth keys, and there is no journal yet that could hold one: nobody could set up a deal",
				advice: "make the first one before the start: doorbuster keys create --role operator --data " + cfg.Data,
			}
		}
	}
	if cfg.JWKS != "" {
		if _, err := shopperTokens(cfg.JWKS); err != nil {
			return failed(err, "name a file with the public keys of shoppers' tokens with --jwks")
		}
	}
	return f
}

func checkFolder(_ context.Context, cfg config.Config) finding {
	path, err := filepath.Abs(cfg.Data)
	if err != nil {
		path = cfg.Data
	}
	if err := embedded.InUse(cfg.Data); err != nil {
		return failed(err, "")
	}
	folder, err := nearest(path)
	if err != nil {
		return failed(err, "name a folder with --data")
	}
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return failed(fmt.Errorf("%s: %w", folder, err), "let this user write to the folder")
	}
	if folder != path {
		return finding{seen: path + " is not there yet, and can be made"}
	}
	return finding{seen: path + " is writable, and nobody has it open"}
}

// nearest returns the folder itself or, while it does not exist, the one in which
// it will be made.
func nearest(path string) (string, error) {
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return path, nil
		case err == nil:
			return "", fmt.Errorf("%s is not a folder", path)
		case !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path):
			return "", err
		}
		path = filepath.Dir(path)
	}
}

func checkSpace(_ context.Context, cfg config.Config) finding {
	folder, err := nearest(cfg.Data)
	if err != nil {
		return failed(err, "")
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(folder, &disk); err != nil {
		return failed(err, "")
	}
	free := int64(disk.Bavail) * int64(disk.Bsize) //nolint:unconvert // the widths differ by system
	f := finding{seen: fmt.Sprintf("%d MiB", free>>20)}
	if free < diskFreeGood {
		f.grade, f.advice = poor, fmt.Sprintf("a million orders take some hundred MiB; have %d MiB free", diskFreeGood>>20)
	}
	if free < diskFreeLeast {
		f.grade = broken
	}
	return f
}

// checkSync measures what every acknowledgement waits for.
func checkSync(_ context.Context, cfg config.Config) finding {
	const advice = "the journal needs a local disk that syncs"
	folder, err := nearest(cfg.Data)
	if err != nil {
		return failed(err, advice)
	}
	file, err := os.CreateTemp(folder, ".doctor-")
	if err != nil {
		return failed(err, advice)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	defer func() { _ = file.Close() }()
	took := make([]time.Duration, syncRounds)
	block := make([]byte, 4096)
	for i := range took {
		start := clockd.Mono()
		if _, err := file.Write(block); err != nil {
			return failed(err, advice)
		}
		if err := file.Sync(); err != nil {
			return failed(err, advice)
		}
		took[i] = time.Duration(clockd.Mono() - start)
	}
	slices.Sort(took)
	median := took[len(took)/2]
	f := finding{seen: fmt.Sprintf("median %v, worst %v of %d", median.Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond), syncRounds)}
	if median > syncGood {
		f.grade, f.advice = poor, fmt.Sprintf("every order waits for a sync: find a disk below %v", syncGood)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(folder, &disk); err != nil {
		return failed(err, advice)
	}
	if disk.Type == inMemory {
		f.grade, f.seen = poor, f.seen+", in memory (tmpfs)"
		f.advice = "a sync means nothing there, and no order survives a reboot: name a folder on a disk with --data"
	}
	return f
}

// checkPostgres looks at a server that keeps the journal instead of the folder, which
// the nodes of a cluster share.
func checkPostgres(ctx context.Context, url string, shared bool) finding {
	h, err := postgres.Examine(ctx, url)
	if err != nil {
		return failed(err, "")
	}
	f := finding{seen: fmt.Sprintf("version %s, a commit takes %v in the median", h.Version, h.Commit.Round(time.Microsecond))}
	if shared && h.Holder != "" {
		f.seen, h.Holder = f.seen+"; in use by "+h.Holder, ""
	}
	switch {
	case h.Holder != "":
		f.grade, f.advice = poor, "another node serves from it: "+h.Holder
	case h.Warning != "":
		f.grade, f.advice = poor, h.Warning
	case h.Commit > syncGood:
		f.grade, f.advice = poor, fmt.Sprintf("every order waits for a commit: find a server below %v", syncGood)
	}
	return f
}

// checkClock measures how late the ticks come that everything is stamped with.
func checkClock(ctx context.Context, _ config.Config) finding {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return failed(err, "")
	}
	clock.Start()
	defer clock.Close()
	if err := clock.Sleep(ctx, clockTicks*clockd.TickDefault); err != nil {
		return failed(err, "")
	}
	stats := clock.Stats()
	f := finding{seen: fmt.Sprintf("%s, latest tick %v late", time.UnixMilli(clock.Now().Wall).UTC().Format(time.RFC3339), stats.LagMax.Round(time.Microsecond))}
	if stats.LagMax > clockLagGood {
		f.grade, f.advice = poor, "the machine is busy or throttled: stamps are coarse"
	}
	return f
}

func checkFiles(context.Context, config.Config) finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return failed(err, "")
	}
	f := finding{seen: fmt.Sprintf("limit %d", limit.Cur)}
	if limit.Cur < filesGood {
		f.grade, f.advice = poor, fmt.Sprintf("every connection is a file: ulimit -n %d", filesGood)
	}
	if limit.Cur < filesLeast {
		f.grade = broken
	}
	return f
}

func checkPort(ctx context.Context, addr string) finding {
	listener, err := new(net.ListenConfig).Listen(ctx, config.Network(addr), addr)
	if err != nil {
		return failed(err, "stop what listens there, or choose another address")
	}
	_ = listener.Close()
	return finding{seen: addr + " is free"}
}
