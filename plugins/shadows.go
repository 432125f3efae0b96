package plugins

import (
	"sync"
	"sync/atomic"
)

// shadowsMax bounds the orders that wait for their candidate's shadow evaluation.
const shadowsMax = 256

// lanesMax bounds the merchants who are remembered: those with an order that waits or is
// evaluated, and as many who had one.
const lanesMax = 2 * shadowsMax

// shadow is one order that a candidate is to be run on. It owns its input.
type shadow struct {
	rule   *rule
	input  []byte
	stable Answer
	next   *shadow // of the same merchant
}

// shadows are the orders that wait for their candidate's shadow evaluation, a lane for
// each merchant. Merchants who have orders waiting get equal parts of the time that
// evaluations take, and when there is no place left, the one with most orders waiting
// loses one: nobody's slow or busy candidate keeps the others' from being compared.
// What is lost is counted. Nothing here allocates once it was made.
type shadows struct {
	more   chan struct{} // has a token when something was added
	missed atomic.Uint64

	mu    sync.Mutex       // guards what follows
	free  []*shadow        // with buffers of orders past
	lanes []*lane          // of merchants, those that are ahead of clock at least
	spare []*lane          // the others
	of    map[string]*lane // lanes by merchant
	clock int64            // what the lane that was chosen last had used
}

// lane is one merchant's orders, oldest first.
type lane struct {
	merchant    string
	first, last *shadow
	waiting     int
	running     bool // one of them is evaluated
	// used is the time that evaluations took, in ns, so that the lane with the least is
	// the next one. A merchant who comes begins where the others are; one who had no
	// order waiting for a moment goes on from where they were.
	used int64
}

func newShadows() *shadows {
	s := &shadows{more: make(chan struct{}, 1), of: make(map[string]*lane, shadowsMax)}
	for range shadowsMax {
		s.free = append(s.free, &shadow{})
	}
	for range lanesMax {
		s.spare = append(s.spare, &lane{})
	}
	s.lanes = make([]*lane, 0, lanesMax)
	return s
}

// take returns a place for an order of a rule, or nil when its merchant has to do
// without. Either add or give must follow.
func (s *shadows) take(u *rule) *shadow {
	s.mu.Lock()
	defer s.mu.Unlock()
	var job *shadow
	if n := len(s.free); n > 0 {
		job, s.free = s.free[n-1], s.free[:n-1]
	} else if job = s.cede(u.key.merchant); job == nil {
		s.miss(u)
		return nil
	}
	job.rule = u
	return job
}

// cede takes the oldest order of the merchant with most of them, unless that is the one
// who asks, or has no more.
func (s *shadows) cede(merchant string) *shadow {
	most := 0
	if own := s.of[merchant]; own != nil {
		most = own.waiting
	}
	var longest *lane
	for _, l := range s.lanes {
		if l.waiting > most {
			longest, most = l, l.waiting
		}
	}
	if longest == nil {
		return nil
	}
	job := longest.pop()
	s.miss(job.rule)
	return job
}

func (s *shadows) miss(u *rule) {
	u.comparison.missed.Add(1)
	s.missed.Add(1)
}

// give returns a place that is not needed.
func (s *shadows) give(job *shadow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	job.rule = nil
	s.free = append(s.free, job)
}

// add lets an order wait for its turn.
func (s *shadows) add(job *shadow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	merchant := job.rule.key.merchant
	l := s.of[merchant]
	if l == nil {
		l = s.open(merchant)
	}
	l.push(job)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// next returns the order whose turn it is, or nil. done must follow.
func (s *shadows) next() *shadow {
	s.mu.Lock()
	defer s.mu.Unlock()
	var least *lane
	for _, l := range s.lanes {
		if l.waiting > 0 && (least == nil || l.used < least.used) {
			least = l
		}
	}
	if least == nil {
		s.close(func(l *lane) bool { return true })
		return nil
	}
	s.clock = least.used
	s.close(func(l *lane) bool { return l.used <= s.clock })
	least.running = true
	return least.pop()
}

// done gives the place of an order back whose evaluation took so many ns.
func (s *shadows) done(job *shadow, took int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.of[job.rule.key.merchant]
	l.used += took
	l.running = false
	job.rule = nil
	s.free = append(s.free, job)
}

// open makes a lane for a merchant.
func (s *shadows) open(merchant string) *lane {
	if len(s.spare) == 0 { // half of the lanes or more are idle
		s.close(func(*lane) bool { return true })
	}
	n := len(s.spare)
	l := s.spare[n-1]
	s.spare = s.spare[:n-1]
	l.merchant, l.used = merchant, s.clock
	s.of[merchant], s.lanes = l, append(s.lanes, l)
	return l
}

// close forgets those of the idle lanes that which says.
func (s *shadows) close(which func(*lane) bool) {
	kept := s.lanes[:0]
	for _, l := range s.lanes {
		if l.waiting > 0 || l.running || !which(l) {
			kept = append(kept, l)
			continue
		}
		delete(s.of, l.merchant)
		s.spare = append(s.spare, l)
	}
	s.lanes = kept
}

func (l *lane) push(job *shadow) {
	if job.next = nil; l.waiting == 0 {
		l.first = job
	} else {
		l.last.next = job
	}
	l.last = job
	l.waiting++
}

func (l *lane) pop() *shadow {
	job := l.first
	l.first, job.next = job.next, nil
	l.waiting--
	return job
}
