package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// folder is the content of a data folder.
type folder map[string][]byte

func readFolder(t *testing.T, fs vfs.FS) folder {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	files := folder{}
	for _, name := range names {
		data, err := readFile(fs, fs.PathJoin("data", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

// with writes the folder to a new file system, with one file replaced.
func (f folder) with(t *testing.T, replaced string, content []byte) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range f {
		if name == replaced {
			data = content
		}
		file, err := fs.Create(fs.PathJoin("data", name), vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = file.Write(bytes.Clone(data)) // with the race detector, MemFS spoils what it was given
		}
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// damaged opens a folder and returns how many of the promised groups are there. A
// refusal must be an ErrCorrupt that says what to do. Whatever is served must be
// right: checkStore compares every event.
func damaged(t *testing.T, fs vfs.FS, p promise) (recovery journal.Recovery, refused bool, err error) {
	t.Helper()
	p.acked = 0 // losing the tail is allowed here, if it is reported
	p.rows = nil
	recovery, err = p.check(testConfig(t, fs, "data"))
	if errors.Is(err, journal.ErrCorrupt) {
		if !strings.Contains(err.Error(), "backup") {
			return recovery, true, fmt.Errorf("a refusal without a remedy: %w", err)
		}
		return recovery, true, nil
	}
	return recovery, false, err
}

// crashedFolder is a folder whose log holds some synced groups and nothing else.
func crashedFolder(t *testing.T, groups int) (folder, string, promise) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem, "data"))
	h := newHistory(5)
	if err := h.open(s); err != nil {
		t.Fatal(err)
	}
	for range groups {
		if err := h.append(s); err != nil {
			t.Fatal(err)
		}
		// Pebble notes how far the log is synced right after it has told so, and
		// the next group is to carry that note.
		time.Sleep(time.Millisecond)
	}
	files := readFolder(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	mustClose(t, s)
	for name := range files {
		if strings.HasPrefix(name, "SPARE") {
			delete(files, name)
		}
	}
	log := ""
	for name := range files {
		if strings.HasSuffix(name, ".log") && name > log {
			log = name
		}
	}
	// A few zeros stand for the many that the log was written over.
	files[log] = files[log][:firstBadChunk(files[log], logNumber(t, log))+64]
	return files, log, h.promise()
}

// lastGroupOffset is where the chunks of the last group begin in a log.
func lastGroupOffset(log []byte, num uint32) int {
	last, offset := 0, 0
	for {
		size, _ := chunkAt(rest(log, offset), num)
		if size == 0 {
			return last
		}
		if kind := log[offset+6]; kind == 9 || kind == 10 { // whole, or first part
			last = offset
		}
		offset += size
	}
}

// chunkOffsets holds where a chunk of the log begins or the last one ends.
func chunkOffsets(log []byte, num uint32) map[int]bool {
	offsets := map[int]bool{0: true}
	for offset := 0; ; {
		size, _ := chunkAt(rest(log, offset), num)
		if size == 0 {
			return offsets
		}
		offset += size
		offsets[offset] = true
	}
}

func logNumber(t *testing.T, name string) uint32 {
	t.Helper()
	var num uint32
	if _, err := fmt.Sscanf(name, "%d.log", &num); err != nil {
		t.Fatal(err)
	}
	return num
}

// TestFlippedBitsOfTheLogAreFound flips bits of a log that was synced group by
// group. Damage before the last group must be refused; the last group cannot be told
// from a torn tail, so it is cut and reported.
func TestFlippedBitsOfTheLogAreFound(t *testing.T) {
	noLeaks(t)
	files, log, p := crashedFolder(t, 6)
	last := lastGroupOffset(files[log], logNumber(t, log))
	if last == 0 {
		t.Fatal("the log has one group")
	}
	refusals, cuts := 0, 0
	chunk, chunkStarts := 0, chunkOffsets(files[log], logNumber(t, log))
	for i := range firstBadChunk(files[log], logNumber(t, log)) {
		if chunkStarts[i] {
			chunk = i
		}
		if i-chunk > walHeader && i%(11*raceStride) != 0 {
			continue // every byte of a header, a sample of the payload
		}
		bit := i % 8
		flipped := bytes.Clone(files[log])
		flipped[i] ^= 1 << bit
		recovery, refused, err := damaged(t, files.with(t, log, flipped), p)
		switch {
		case err != nil:
			t.Errorf("bit %d of byte %d: %v", bit, i, err)
		case i < last && !refused:
			t.Errorf("bit %d of byte %d, before the last group at %d, was not refused", bit, i, last)
		case i >= last && recovery.TornBytes == 0 && !refused:
			t.Errorf("bit %d of byte %d, in the last group, was cut without a word", bit, i)
		case refused:
			refusals++
		default:
			cuts++
		}
	}
	t.Logf("last group at %d: %d refused, %d cut and reported", last, refusals, cuts)
	if cuts == 0 {
		t.Error("no flip was cut: the last group was not reached")
	}
}

// TestEveryCutOfTheLogIsReported cuts the log at each byte of a header and around it,
// and at a sample of the others.
func TestEveryCutOfTheLogIsReported(t *testing.T) {
	noLeaks(t)
	files, log, p := crashedFolder(t, 6)
	num := logNumber(t, log)
	whole := chunkOffsets(files[log], num)
	chunk := 0 // where the chunk begins that the cut is in
	for end := range firstBadChunk(files[log], num) {
		if whole[end] {
			chunk = end
		}
		if end%raceStride != 0 || (end-chunk > walHeader+3 && end%37 != 0 && !whole[end+1]) {
			continue
		}
		short := bytes.Clone(files[log][:end])
		filled := append(bytes.Clone(short), make([]byte, len(files[log])-end)...)
		for _, content := range [][]byte{short, filled} {
			recovery, refused, err := damaged(t, files.with(t, log, content), p)
			if err != nil || refused {
				t.Fatalf("cut at byte %d: refused %v, %v", end, refused, err)
			}
			// With zeros behind it, a header without its log number looks like none.
			if len(content) > end && end-chunk < walEOFHeader {
				continue
			}
			next := end
			for !whole[next] {
				next++
			}
			if len(content) > end && next > end && bytes.Equal(content[end:next], files[log][end:next]) {
				continue // what was cut off are zeros
			}
			if reported := recovery.TornBytes > 0; reported == whole[end] {
				t.Fatalf("cut at byte %d of %d, between chunks %v: reported %v", end, len(content), whole[end], reported)
			}
		}
	}
}

// TestFlippedBitsOfAClosedFolderAreFound flips bits in every file of a folder that was
// closed in order: what is served must be right and complete.
func TestFlippedBitsOfAClosedFolderAreFound(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	h := newHistory(6)
	if err := h.scenario(testConfig(t, mem, "data"), 20); err != nil {
		t.Fatal(err)
	}
	files, p := readFolder(t, mem), h.promise()
	random := rand.New(rand.NewPCG(6, 6))
	refusals, served := 0, 0
	try := func(name string, i, bit int) {
		flipped := bytes.Clone(files[name])
		flipped[i] ^= 1 << bit
		_, err := p.check(testConfig(t, files.with(t, name, flipped), "data"))
		switch {
		case err == nil:
			served++
		case strings.Contains(err.Error(), "open after the crash"), errors.Is(err, journal.ErrCorrupt):
			refusals++
		default:
			t.Errorf("%s, bit %d of byte %d of %d: %v", name, bit, i, len(files[name]), err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		size := len(files[name])
		// The bytes of the manifest and the version in a table's footer, which tells how the
		// rest is read; a sample of all others.
		flips := min(size, 24/raceStride)
		if strings.HasPrefix(name, "MANIFEST") {
			flips = min(size, 400/raceStride)
		}
		for n := range flips {
			i := n
			if flips < size {
				i = random.IntN(size)
			}
			try(name, i, random.IntN(8))
		}
		if strings.HasSuffix(name, ".sst") {
			const version = 12 // bytes in front of the end
			for bit := range 8 {
				try(name, size-version, bit)
			}
		}
	}
	t.Logf("%d files: %d refused, %d served whole", len(files), refusals, served)
	if refusals == 0 {
		t.Error("no flip was found")
	}
}

// TestLostTablesAreNamed takes tables away, or ends of them: the refusal names each.
func TestLostTablesAreNamed(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	h := newHistory(6)
	if err := h.scenario(testConfig(t, mem, "data"), 20); err != nil {
		t.Fatal(err)
	}
	files := readFolder(t, mem)
	var tables []string
	for name := range files {
		if strings.HasSuffix(name, ".sst") {
			tables = append(tables, name)
		}
	}
	if len(tables) == 0 {
		t.Fatal("there is no table")
	}
	refused := func(fs vfs.FS, name, what string) {
		_, err := Open(testConfig(t, fs, "data"))
		corrupt := (*journal.CorruptError)(nil)
		if !errors.As(err, &corrupt) || corrupt.File != "data/"+name || !strings.Contains(corrupt.Detail, name+what) || !strings.Contains(corrupt.Remedy, "docs/backup.md") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range tables {
		refused(files.with(t, name, files[name][:len(files[name])-1]), name, " has another size")
		rest := maps.Clone(files)
		delete(rest, name)
		refused(rest.with(t, "", nil), name, " is missing")
	}
	for _, name := range tables {
		delete(files, name)
	}
	_, err := Open(testConfig(t, files.with(t, "", nil), "data"))
	for _, name := range tables {
		if err == nil || !strings.Contains(err.Error(), name+" is missing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOneDamagedStreamDoesNotStopTheOthers damages the table under one stream.
func TestOneDamagedStreamDoesNotStopTheOthers(t *testing.T) {
	noLeaks(t)
	ctx := context.Background()
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem, "data"))
	noise := noise()
	for _, stream := range []string{"bad", "good"} {
		if _, err := s.Open(ctx, stream); err != nil {
			t.Fatal(err)
		}
		for seq := range uint64(12) {
			w := journaltest.Append(stream, 1, seq+1, fmt.Sprint(stream, seq+1, string(noise)))
			if err := errors.Join(s.Commit([]*journal.Write{w}), w.Err); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustClose(t, s)
	files := readFolder(t, mem)
	struck := 0
	for name, content := range files {
		at := bytes.Index(content, []byte("bad6"+string(noise[:8])))
		if strings.HasSuffix(name, ".sst") && at >= 0 {
			content[at+1000] ^= 1
			struck++
		}
	}
	if struck != 1 {
		t.Fatalf("the event was found in %d tables", struck)
	}
	s = mustOpen(t, testConfig(t, files.with(t, "", nil), "data"))
	var corrupt *journal.CorruptError
	n := 0
	err := s.Read(ctx, "bad", 0, func(journal.Event) error { n++; return nil })
	if !errors.As(err, &corrupt) || corrupt.Stream != "bad" || corrupt.Remedy == "" || n == 0 || n >= 6 {
		t.Errorf("Read of the damaged stream: %v after %d events", err, n)
	}
	if _, err := s.Get(ctx, "bad", 6, nil); !errors.Is(err, journal.ErrCorrupt) {
		t.Errorf("Get of the damaged event: %v", err)
	}
	if s.Stats().Corrupt != 1 {
		t.Errorf("%d corrupt streams", s.Stats().Corrupt)
	}
	listed := map[string]bool{}
	if err := s.Streams(ctx, "", func(stream string, head journal.Head) error {
		listed[stream] = head.Seq > 0
		return nil
	}); err != nil || !listed["bad"] || !listed["good"] {
		t.Errorf("listed with events: %v, %v", listed, err)
	}
	head, err := s.Open(ctx, "good")
	if err != nil || head.Seq != 12 {
		t.Fatalf("Open of the other stream: %+v %v", head, err)
	}
	if _, err := s.Get(ctx, "good", 2, nil); err != nil {
		t.Errorf("Get of the other stream: %v", err)
	}
	w := journaltest.Append("good", head.Epoch, head.Seq+1, "more")
	if err := errors.Join(s.Commit([]*journal.Write{w}), w.Err); err != nil {
		t.Errorf("append to the other stream: %v", err)
	}
	if err := s.Read(ctx, "good", 0, func(journal.Event) error { return nil }); err != nil {
		t.Errorf("Read of the other stream: %v", err)
	}
	mustClose(t, s)
}

// noise fills blocks of its own, and does not compress.
func noise() []byte {
	b := make([]byte, 40<<10)
	random := rand.New(rand.NewPCG(7, 7))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// lines counts what is logged, and shows what has more than one line.
type lines struct {
	slog.Handler
	t     *testing.T
	count sync.Map // by message, *atomic.Int64
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	n, _ := l.count.LoadOrStore(r.Message, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	r.Attrs(func(a slog.Attr) bool {
		if strings.Contains(a.Value.String(), "\n") {
			l.t.Errorf("%s: %s has several lines: %s", r.Message, a.Key, a.Value)
		}
		return true
	})
	return nil
}

// of counts the lines that begin so.
func (l *lines) of(message string) (n int64) {
	l.count.Range(func(m, count any) bool {
		if strings.HasPrefix(m.(string), message) {
			n += count.(*atomic.Int64).Load()
		}
		return true
	})
	return n
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no sign of " + what)
		}
	}
}

// TestMergesRestAfterDamage: a merge that meets a damaged block fails. It is tried again
// after a while and not at once, and the block is told of once.
func TestMergesRestAfterDamage(t *testing.T) {
	noLeaks(t)
	ctx := context.Background()
	mem, logged := vfs.NewMem(), &lines{Handler: slog.NewTextHandler(io.Discard, nil), t: t}
	var now atomic.Int64
	cfg := testConfig(t, mem, "data")
	cfg.Now, cfg.Log = now.Load, slog.New(logged)
	event := string(noise())
	round := func(stream string, use func(*Store)) { // leaves a table that overlaps the others
		s := mustOpen(t, cfg)
		head, err := s.Open(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		w := journaltest.Append(stream, head.Epoch, head.Seq+1, event)
		if err := errors.Join(s.Commit([]*journal.Write{w}), w.Err); err != nil {
			t.Fatal(err)
		}
		use(s)
		mustClose(t, s)
	}
	round("damaged", func(*Store) {})
	files := readFolder(t, mem)
	for name, content := range files {
		if at := bytes.Index(content, []byte(event[:8])); strings.HasSuffix(name, ".sst") && at >= 0 {
			content[at+1000] ^= 1
		}
	}
	cfg.FS = files.with(t, "", nil)
	const failed = "journal: tables could not be written or merged"
	for range 40 {
		if logged.of(failed) == 0 {
			round("whole", func(*Store) {})
		}
	}
	before, told := logged.of(failed), logged.of("journal: damaged block")
	if told == 0 {
		t.Fatal("nothing is said of the damaged block")
	}
	now.Add(int64(mergeRest))
	round("whole", func(s *Store) {
		await(t, "a merge that fails", func() bool { return logged.of(failed) == before+1 })
		for range 5 {
			s.Stats()
			if err := s.db.Flush(); err != nil { // pebble asks for merges after it
				t.Fatal(err)
			}
		}
		if n := logged.of(failed); n != before+1 {
			t.Errorf("%d merges began while they rest", n-before-1)
		}
		now.Add(int64(mergeRest))
		s.Stats()
		await(t, "the merge to be tried again", func() bool { return logged.of(failed) == before+2 })
		if n := logged.of("journal: damaged block") - told; n != 1 {
			t.Errorf("two merges met the damaged block, and it was told of %d times", n)
		}
	})
}

// TestMisplacedAndMissingRecordsAreFound plants what only a bug or a strange disk can
// leave behind.
func TestMisplacedAndMissingRecordsAreFound(t *testing.T) {
	noLeaks(t)
	ctx := context.Background()
	record := func(stream string, first, count uint64, frames ...string) (key, value []byte) {
		key = appendEventKey(nil, stream, first)
		value = append(make([]byte, sealLen), 1, byte(count))
		for _, f := range frames {
			value = journal.AppendEvent(value, []byte(f))
		}
		seal(key, value)
		return key, value
	}
	unknownFormat := func(key, value []byte) ([]byte, []byte) {
		value[4] = format + 1
		sum := checksum(key, value)
		value[0], value[1], value[2], value[3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		return key, value
	}
	swap := func(key, _ []byte, _, value []byte) ([]byte, []byte) { return key, value }
	k1, v1 := record("deal", 4, 1, "x")
	k2, v2 := record("deal", 5, 1, "x")
	mk, mv := swap(k1, v1, k2, v2)
	for name, plant := range map[string]func() ([]byte, []byte){
		"gap":              func() ([]byte, []byte) { return record("deal", 5, 1, "x") },
		"overlap":          func() ([]byte, []byte) { return record("deal", 2, 2, "x", "y") },
		"count too high":   func() ([]byte, []byte) { return record("deal", 4, 2, "x") },
		"count of zero":    func() ([]byte, []byte) { return record("deal", 4, 0) },
		"value of another": func() ([]byte, []byte) { return mk, mv },
		"unknown format":   func() ([]byte, []byte) { return unknownFormat(record("deal", 4, 1, "x")) },
		"too short":        func() ([]byte, []byte) { return appendEventKey(nil, "deal", 4), []byte{1, 2, 3} },
	} {
		s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
		for first := range uint64(3) {
			key, value := record("deal", first+1, 1, "x")
			if err := s.set(key, value); err != nil {
				t.Fatal(err)
			}
		}
		key, value := plant()
		if err := s.set(key, value); err != nil {
			t.Fatal(err)
		}
		err := s.Read(ctx, "deal", 0, func(journal.Event) error { return nil })
		if !errors.Is(err, journal.ErrCorrupt) {
			t.Errorf("%s: Read: %v", name, err)
		}
		_, err = s.Open(ctx, "deal")
		if gap := name == "gap" || name == "overlap"; gap != (err == nil) {
			t.Errorf("%s: Open: %v", name, err)
		}
		mustClose(t, s)
	}
}

// TestDamagedHeadsAndSnapshots plants bad heads and snapshots.
func TestDamagedHeadsAndSnapshots(t *testing.T) {
	noLeaks(t)
	ctx := context.Background()
	s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
	for stream, field := range map[string]byte{"epoch": headEpoch, "snapshot": headSnapshot} {
		if err := s.set(headKey(stream, field), []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(ctx, stream); !errors.Is(err, journal.ErrCorrupt) {
			t.Errorf("Open with a bad %s: %v", stream, err)
		}
	}
	key := appendSnapshotKey(nil, "deal")
	if err := s.set(key, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Snapshot(ctx, "deal"); !errors.Is(err, journal.ErrCorrupt) {
		t.Errorf("a bad snapshot: %v", err)
	}
	if err := s.set([]byte{keyHead, 'x'}, []byte("not a head key")); err != nil {
		t.Fatal(err)
	}
	var names []string
	err := s.Streams(ctx, "", func(name string, head journal.Head) error {
		names = append(names, fmt.Sprint(name, head))
		return nil
	})
	if err != nil || strings.Join(names, " ") != "epoch{0 0 0} snapshot{0 0 0}" {
		t.Errorf("Streams: %q %v", names, err)
	}
	mustClose(t, s)
}

func FuzzRecord(f *testing.F) {
	valid := func(first uint64, epoch, count uint64, frames []byte) []byte {
		key := appendEventKey(nil, "deal", first)
		value := make([]byte, sealLen)
		value = append(value, byte(epoch), byte(count))
		value = append(value, frames...)
		seal(key, value)
		return value
	}
	f.Add(uint64(1), valid(1, 1, 1, []byte{1, 'x'}))
	f.Add(uint64(7), valid(7, 3, 2, []byte{0, 2, 'x', 'y'}))
	f.Add(uint64(0), valid(0, 1, 1, []byte{0}))
	f.Add(uint64(1), []byte{})
	f.Add(uint64(1), []byte{0, 0, 0, 0, format, 0x80, 0x00, 1})
	f.Fuzz(func(t *testing.T, first uint64, value []byte) {
		key := appendEventKey(nil, "deal", first)
		if _, err := decodeRecord(key, value); err == nil {
			checkDecoded(t, key, value)
		}
		if len(value) < sealLen {
			return
		}
		// The checksum keeps most inputs out, so let them through as well.
		value = bytes.Clone(value)
		seal(key, value)
		if _, err := decodeRecord(key, value); err == nil {
			checkDecoded(t, key, value)
		}
		if _, _, err := decodeSnapshot(key, value); err != nil && !errors.Is(err, errRecord) {
			t.Fatal(err)
		}
		if n, err := unsealNumber(key, value); err == nil && !bytes.Equal(sealedNumber(key, n), value) {
			t.Fatalf("%x reads as %d and writes otherwise", value, n)
		}
	})
}

// checkDecoded writes a record again as Commit does: there is one encoding of each.
func checkDecoded(t *testing.T, key, value []byte) {
	t.Helper()
	r, err := decodeRecord(key, value)
	if err != nil {
		t.Fatal(err)
	}
	if len(value) != recordLen(r.epoch, r.count, len(r.frames)) {
		t.Fatalf("a record of %d bytes should have %d", len(value), recordLen(r.epoch, r.count, len(r.frames)))
	}
	seen := uint64(0)
	err = each(r, 0, r.last(), func(e journal.Event) error {
		if e.Seq != r.first+seen || e.Epoch != r.epoch {
			t.Fatalf("event %d of epoch %d in %+v", e.Seq, e.Epoch, r)
		}
		seen++
		return nil
	})
	if err != nil || seen != r.count {
		t.Fatalf("%d of %d events, %v", seen, r.count, err)
	}
}

// TestDamagedManifestIsRefused flips a bit in each chunk of the manifest of a folder
// that was closed in order. Only the newest edit may be taken for a torn tail.
func TestDamagedManifestIsRefused(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	h := newHistory(8)
	if err := h.scenario(testConfig(t, mem, "data"), 20); err != nil {
		t.Fatal(err)
	}
	files := readFolder(t, mem)
	name, err := atomicfs.ReadMarker(mem, "data", "manifest")
	if err != nil {
		t.Fatal(err)
	}
	var starts []int
	for at := 0; at < len(files[name]); {
		size, _ := manifestChunkAt(rest(files[name], at))
		if size == 0 {
			t.Fatalf("no chunk at byte %d of %d", at, len(files[name]))
		}
		starts = append(starts, at)
		at += size
	}
	for i, at := range starts {
		flipped := bytes.Clone(files[name])
		flipped[at+manifestHeader] ^= 1
		_, err := inspectManifest(files.with(t, name, flipped), "data")
		if refused := errors.Is(err, journal.ErrCorrupt); refused != (i < len(starts)-1) {
			t.Errorf("chunk %d of %d damaged: %v", i+1, len(starts), err)
		}
	}
}
