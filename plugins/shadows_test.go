package plugins

import (
	"fmt"
	"testing"
)

// seller is a merchant's rule with a candidate in the shadow.
func seller(merchant string) *rule {
	key := ruleKey{merchant, "sale"}
	return &rule{key: key, comparison: newComparison(key, &Rollout{Mode: ModeShadow})}
}

func (s *shadows) order(u *rule) {
	if job := s.take(u); job != nil {
		s.add(job)
	}
}

// TestShadowsShareTheTime: a merchant whose evaluations take a thousand times as long,
// and who has all places taken, keeps nobody waiting for more than one of them.
func TestShadowsShareTheTime(t *testing.T) {
	s := newShadows()
	slow, quick := seller("slow"), seller("quick")
	for range 2 * shadowsMax {
		s.order(slow)
	}
	for range shadowsMax / 2 {
		s.order(quick)
	}
	if m := quick.comparison.missed.Load(); m != 0 {
		t.Fatalf("%d of the other's orders are lost", m)
	}
	if m := slow.comparison.missed.Load(); m != shadowsMax+shadowsMax/2 || s.missed.Load() != m {
		t.Fatalf("%d are lost, %d in all", m, s.missed.Load())
	}
	took := map[*rule]int{}
	for took[quick] < shadowsMax/2 {
		job := s.next()
		u := job.rule
		took[u]++
		s.done(job, map[*rule]int64{slow: 1_000_000, quick: 1_000}[u])
		s.order(slow) // whenever there is a place
	}
	if took[slow] > 2 {
		t.Errorf("%d slow evaluations before the quick ones were done", took[slow])
	}

	// Of two neither gets more of the time, but for what the slow one has taken before,
	// though one of them never has two orders waiting.
	late := seller("late")
	took = map[*rule]int{}
	for range 20_000 {
		s.order(slow)
		if n := s.of["late"]; n == nil || n.waiting == 0 { // one at a time
			s.order(late)
		}
		job := s.next()
		u := job.rule
		took[u]++
		s.done(job, map[*rule]int64{slow: 1_000, late: 1_000}[u])
	}
	if took[late] < 9_000 || took[slow] < 9_000 {
		t.Errorf("%d and %d of 20000", took[late], took[slow])
	}
}

// TestShadowsOfManyMerchants: each of as many as there are places has one, in whatever
// order they come, and all places come back.
func TestShadowsOfManyMerchants(t *testing.T) {
	s := newShadows()
	greedy := seller("greedy")
	for range shadowsMax {
		s.order(greedy)
	}
	var sellers []*rule
	for n := range shadowsMax {
		sellers = append(sellers, seller(fmt.Sprint("m-", n)))
		s.order(sellers[n])
	}
	lost := uint64(0)
	for _, u := range sellers {
		lost += u.comparison.missed.Load()
	}
	if m := greedy.comparison.missed.Load(); lost != 0 || m != shadowsMax {
		t.Errorf("%d merchants have no place, and the greedy one has lost %d", lost, m)
	}
	for job := s.next(); job != nil; job = s.next() {
		s.done(job, 1)
		s.give(s.take(sellers[0]))
	}
	if len(s.free) != shadowsMax || len(s.spare) != lanesMax || len(s.lanes) != 0 || len(s.of) != 0 {
		t.Errorf("%d places, %d spare lanes, %d lanes of %d merchants", len(s.free), len(s.spare), len(s.lanes), len(s.of))
	}
	if n := testing.AllocsPerRun(1_000, func() {
		s.order(greedy)
		s.order(sellers[1])
		for job := s.next(); job != nil; job = s.next() {
			s.done(job, 1)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
