package embedded

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// mergeRest is how long no tables are merged after that has failed. Where a damaged block
// is the reason, pebble by itself reads up to it again at once, without end.
const mergeRest = time.Minute

// A merge takes a processor for a second and more, and cannot be stopped. It costs less for
// an event the more tables it merges, and what it spares is a reader's look into each. So
// merges wait for the end of a rush, until tables pile up.
const (
	mergeRush = 10_000           // events a second that are a rush
	mergeCalm = 10 * time.Second // without one until it has ended
	mergePile = 32               // tables of the newest that a reader looks into from which on merges wait no more
	mergeStop = 64               // and from which on writes wait for merges
)

// merges lets pebble merge tables: one merge at a time, none while they rest, and few
// amid a rush. It is the handle of the one that runs, too.
type merges struct {
	now func() int64 // Config.Now

	calls sync.RWMutex           // shared by who calls db, held alone to end that
	db    pebble.DBForCompaction // nil before pebble has opened and after it closes; guarded by calls

	mu      sync.Mutex // guards the fields below; db is never called with it
	running bool
	waits   bool   // one was refused, and db asks no more by itself until it has nothing to merge
	refused bool   // one was refused since db was last granted one
	from    int64  // they rest until then
	looked  int64  // when it was judged whether there is a rush
	events  uint64 // that were written by then, in all
	calm    int64  // the rush has ended then
	piled   int    // of the newest tables, those that a reader looks into
}

// rest keeps tables from being merged for a while.
func (m *merges) rest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from = m.now() + int64(mergeRest)
}

// look hears how many events were written in all and how many of the newest tables a reader
// looks into for a key, and begins what had to wait: nothing else does once one was refused,
// so it is called several times a second. Whether there is a rush shows in what came since
// the call a second ago or more.
func (m *merges) look(events uint64, piled int) {
	m.mu.Lock()
	if now := m.now(); now-m.looked >= int64(time.Second) {
		if float64(int64(events-m.events)) >= mergeRush*time.Duration(now-m.looked).Seconds() {
			m.calm = now + int64(mergeCalm)
		}
		m.looked, m.events = now, events
	}
	m.piled = piled
	m.mu.Unlock()
	m.again()
}

// again begins what had to wait, if it may by now.
func (m *merges) again() {
	m.calls.RLock()
	defer m.calls.RUnlock()
	for m.db != nil && m.grant() && !m.db.Schedule(m) {
		m.declined()
	}
}

// grant says whether a merge that waits may begin.
func (m *merges) grant() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.waits || !m.free() {
		return false
	}
	m.running, m.refused = true, false
	return true
}

// declined notes that db had nothing to merge any more. Whoever was refused while it was
// asked still waits.
func (m *merges) declined() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.waits = false, m.refused
}

// free is for who holds m.mu.
func (m *merges) free() bool {
	now := m.now()
	return !m.running && now >= m.from && (now >= m.calm || m.piled >= mergePile)
}

// Register implements pebble.CompactionScheduler.
func (m *merges) Register(_ int, db pebble.DBForCompaction) {
	m.calls.Lock()
	defer m.calls.Unlock()
	m.db = db
}

// Unregister implements pebble.CompactionScheduler.
func (m *merges) Unregister() { m.Register(0, nil) }

// TrySchedule implements pebble.CompactionScheduler.
func (m *merges) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	m.mu.Lock()
	defer m.mu.Unlock()
	may := m.free()
	if may {
		m.running = true
	} else {
		m.waits, m.refused = true, true
	}
	return may, m
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler. It is always
// one at a time.
func (m *merges) UpdateGetAllowedWithoutPermission() {}

// Started implements pebble.CompactionGrantHandle.
func (m *merges) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (m *merges) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (m *merges) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle.
func (m *merges) Done() {
	m.mu.Lock()
	m.running, m.piled = false, 0 // until the next look
	m.mu.Unlock()
	m.again()
}
