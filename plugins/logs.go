package plugins

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// What rules do on the order path can be watched. The order path itself traces
// nothing: because a rule is pure, what an evaluation logged is what the same
// evaluation logs when it is done again, by a goroutine that orders do not wait
// for. Evaluate only looks whether anybody follows the rule, or whether it faulted.

// Bounds of what is kept and done for those who watch.
const (
	// LogsKept bounds the entries that are kept of a rule that nobody follows:
	// its last faults.
	LogsKept = 16
	// LogsFollowed bounds the entries that a follower can be behind.
	LogsFollowed = 256
	// LogSamples bounds the evaluations a second, by the orders' stamps, that are
	// logged of a followed rule; LogFaults bounds its faults likewise, followed or not.
	LogSamples = 20
	LogFaults  = 100
	// faultLineEvery is the least time, by the orders' stamps (ms), between two lines of
	// the server's log about one rule's faults.
	faultLineEvery = 60_000
	// logQueue bounds the evaluations that wait to be done again.
	logQueue = 1_024
)

// LogEntry is one evaluation on the order path.
type LogEntry struct {
	Seq uint64 // of the rule's entries, rising
	At  int64  // the order's stamp, Unix ms
	Evaluation
}

// logbook is one rule's entries, for all moments of the rule.
type logbook struct {
	followers       atomic.Int32
	samples, faults quota
	toldAt          int64 // stamp of the fault that the server's log names; the logger's goroutine's

	mu      sync.Mutex // guards what follows
	entries []LogEntry
	seq     uint64
	grown   chan struct{} // closed when an entry is added; nil when nobody waits
}

// quota lets so many through in each second of the orders' stamps.
type quota struct{ state atomic.Int64 } // second << 8 | count

const quotaCount = 1<<8 - 1

func (q *quota) take(now int64, most int64) bool {
	second := now / 1_000
	for {
		old := q.state.Load()
		count := int64(0)
		if old>>8 == second {
			count = old & quotaCount
		}
		if count >= most {
			return false
		}
		if q.state.CompareAndSwap(old, second<<8|(count+1)) {
			return true
		}
	}
}

// wants says whether an evaluation is one to log. On the order path this is a
// comparison and a load.
func (l *logbook) wants(in *abi.Input, out *abi.Verdict) bool {
	if out.Fault != abi.FaultNone {
		return l.faults.take(in.Now, LogFaults)
	}
	return l.followers.Load() > 0 && l.samples.take(in.Now, LogSamples)
}

// add keeps an entry and wakes the followers.
func (l *logbook) add(e LogEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	kept := LogsKept
	if l.followers.Load() > 0 {
		kept = LogsFollowed
	}
	l.entries = append(l.entries, e)
	if over := len(l.entries) - kept; over > 0 {
		l.entries = slices.Delete(l.entries, 0, over)
	}
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// after returns the entries behind seq, and a channel that is closed when there
// are more.
func (l *logbook) after(seq uint64) ([]LogEntry, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	first, _ := slices.BinarySearchFunc(l.entries, seq+1, func(e LogEntry, seq uint64) int {
		return int(int64(e.Seq) - int64(seq))
	})
	return slices.Clone(l.entries[first:]), l.grown
}

// logOf returns the log of a merchant's own rule. That of a house rule tells of the
// orders of all merchants, and so is for nobody but the house, which is "".
func (r *Registry) logOf(merchant, id string) (*logbook, error) {
	if own := (*r.rules.Load())[ruleKey{merchant, id}]; own != nil {
		return &own.counters.log, nil
	}
	if r.Exists("", id) {
		return nil, fmt.Errorf("%w: %q is a house rule, whose log no merchant sees", ErrRuleNotFound, id)
	}
	return nil, fmt.Errorf("%w: %q", ErrRuleNotFound, id)
}

// Logs returns what is kept of a rule's evaluations: the last faults, and what
// followers were shown.
func (r *Registry) Logs(merchant, id string) ([]LogEntry, error) {
	log, err := r.logOf(merchant, id)
	if err != nil {
		return nil, err
	}
	entries, _ := log.after(0)
	return entries, nil
}

// Follower reads a rule's entries as they come. It is for one goroutine.
type Follower struct {
	log  *logbook
	seen uint64
}

// Follow begins to log a rule: while there is a follower, a sample of its
// evaluations is logged besides its faults. The follower starts with what is kept.
// Close it.
func (r *Registry) Follow(merchant, id string) (*Follower, error) {
	log, err := r.logOf(merchant, id)
	if err != nil {
		return nil, err
	}
	log.followers.Add(1)
	return &Follower{log: log}, nil
}

// Next returns the entries since the last call, at least one, or none once done
// is closed. missed is how many came and went before they could be returned.
func (f *Follower) Next(done <-chan struct{}) (entries []LogEntry, missed uint64) {
	for {
		entries, grown := f.log.after(f.seen)
		if n := len(entries); n > 0 {
			if f.seen > 0 {
				missed = entries[0].Seq - f.seen - 1
			}
			f.seen = entries[n-1].Seq
			return entries, missed
		}
		select {
		case <-grown:
		case <-done:
			return nil, 0
		}
	}
}

// Close ends the following.
func (f *Follower) Close() { f.log.followers.Add(-1) }

// logJob is an evaluation to be done again. It owns its input.
type logJob struct {
	log     *logbook
	key     ruleKey
	version uint32
	input   []byte
}

// logger does evaluations again, one after the other, and rests as long as each took: it
// has half of a processor at most.
type logger struct {
	jobs  chan logJob
	ended chan struct{}
}

func (r *Registry) startLogger() *logger {
	l := &logger{jobs: make(chan logJob, logQueue), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		for job := range l.jobs {
			if r.life.Err() == nil {
				begin := clockd.Mono()
				r.logAgain(&job)
				end := clockd.Mono()
				_ = clockd.SleepUntil(r.life, end+(end-begin)) // or until the registry closes
			}
		}
	}()
	return l
}

// logAgain does an evaluation of the order path again and keeps what it logs. A version
// that could not be loaded stays so: orders make the server compile nothing twice.
func (r *Registry) logAgain(job *logJob) {
	in, err := abi.DecodeInput(job.input)
	if err != nil {
		return // texts that are not UTF-8; an order has none
	}
	e := &Evaluation{FaultDetail: "the version is not loaded"}
	e.Fault, e.Verdict.Version = abi.FaultRuleInit, job.version
	if v, err := r.version(r.life, job.key.merchant, job.key.id, job.version); err == nil && v.failure.Load() == nil {
		if again, err := r.EvaluateVersion(r.life, job.key.merchant, job.key.id, job.version, &in); err == nil {
			e = again
		}
	}
	r.tellFault(job, in.Now, e)
	job.log.add(LogEntry{At: in.Now, Evaluation: *e})
}

// tellFault names a rule that faults in the server's log, now and then: whoever looks
// after the server does not know whose rules there are.
func (r *Registry) tellFault(job *logJob, at int64, e *Evaluation) {
	if e.Fault == abi.FaultNone || job.log.toldAt > 0 && at-job.log.toldAt < faultLineEvery {
		return
	}
	job.log.toldAt = at
	r.config.Logger.Warn("a promotion rule faults", "merchant", job.key.merchant, "rule", job.key.id, "version", e.Verdict.Version,
		"fault", e.Fault.String(), "detail", e.FaultDetail)
}

// offer hands over an evaluation of a version, unless too many wait.
func (l *logger) offer(u *rule, version uint32, in *abi.Input) {
	input, err := in.Append(nil)
	if err != nil {
		return // it was too large for the rule, too
	}
	select {
	case l.jobs <- logJob{&u.counters.log, u.key, version, input}:
	default:
	}
}

// stop waits for the evaluation under way, once the registry's life has ended, and
// forgets the others. Nothing may be offered any more.
func (l *logger) stop() {
	close(l.jobs)
	<-l.ended
}
