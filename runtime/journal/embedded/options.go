package embedded

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// The names of the formats. Pebble writes the name of its comparer into the manifest and
// each table, and refuses a folder with another one, so that a program which does not know
// of groups opens none that may have some: it shows this name instead. A folder from
// before them goes on without.
const (
	withGroups    = "doorbuster.groups (written by a newer doorbuster)"
	withoutGroups = "doorbuster.exact"
)

// comparer orders keys by their bytes and keeps the index of a table exact. Pebble's own
// shortens the keys in it, so that a damaged block seems to reach up to the next stream:
// to look for a stream in between would have to read it.
func comparer(name string) *pebble.Comparer {
	exact := *pebble.DefaultComparer
	exact.Name = name
	exact.Separator = func(dst, a, _ []byte) []byte { return append(dst, a...) }
	exact.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	return &exact
}

// options tunes pebble for a journal: everything is written once, nearly in order,
// read back seldom, and deleted in whole ranges if ever. So tables may pile up before
// they are merged, and bytes written count for more than the cost of a read.
func (s *Store) options() *pebble.Options {
	format := withGroups
	if !s.grouped {
		format = withoutGroups
	}
	opts := &pebble.Options{
		Comparer: comparer(format),
		FS:       &guardFS{FS: s.spares, failed: s.vitalFailed},
		Lock:     s.lock,
		Cache:    s.cache,
		// Sync chunks in the log tell a torn tail from damage in the middle. Tables have a
		// checksum over their footer: without it a flipped bit of the version in there makes
		// pebble take the blocks for those of another format, and panic.
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                uint64(s.cfg.MemTable),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       16, // merges are due from half as many tables to look into
		L0StopWritesThreshold:       mergeStop,
		LBaseMaxBytes:               512 << 20,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      (*logger)(s),
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				s.merges.rest()
				s.cfg.Log.Error("journal: tables could not be written or merged; merging waits before it is tried again", "wait", mergeRest, "err", firstLine(err))
			},
			// The streams in the damaged part answer with ErrCorrupt by themselves;
			// pebble's default would end the process for all others too.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				what := firstLine(info.Details)
				if _, known := s.damage.LoadOrStore(what, struct{}{}); !known { // each reader finds it again
					s.cfg.Log.Error("journal: damaged block in a table; the streams in it cannot be read, and each is named when it is asked for: docs/runbooks/DoorbusterStreamsCorrupt.md",
						"file", info.Path, "err", what)
				}
			},
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 16 << 10
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		opts.TargetFileSizes[i] = 32 << 20
	}
	// What has come to rest is worth the time of a better compression.
	opts.Levels[len(opts.Levels)-1].Compression = func() *sstable.CompressionProfile { return sstable.ZstdCompression }
	// Reads must not set off compactions: a replay would rewrite what it reads.
	opts.Experimental.ReadSamplingMultiplier = -1
	opts.Experimental.CompactionScheduler = s.merges
	return opts
}

// logger is how pebble speaks to the Store.
type logger Store

func (l *logger) Infof(string, ...any) {}

func (l *logger) Errorf(format string, args ...any) {
	l.cfg.Log.Error("journal: " + fmt.Sprintf(format, args...))
}

// Fatalf is called where pebble cannot go on, often in the background, and expects the
// process to end. If that is still to come, the goroutine ends instead, so that pebble
// never runs on as if nothing had been.
func (l *logger) Fatalf(format string, args ...any) {
	_ = (*Store)(l).failWith(fmt.Errorf(format, args...))
	runtime.Goexit()
}
