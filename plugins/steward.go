package plugins

import (
	"errors"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// tripEvery is after how long it is tried again to store a rollback.
const tripEvery = time.Second

// trip is a candidate that has to go.
type trip struct {
	comparison *comparison
	why        string
	again      bool // it could not be stored, and somebody has been told so
}

// steward does what candidates need beside the order path: shadow evaluations, and
// the rollbacks that nobody asked for.
type steward struct {
	registry *Registry
	shadows  *shadows
	trips    chan trip // never full: each of at most RulesMax comparisons trips once
	quit     chan struct{}
	ended    sync.WaitGroup
}

func (r *Registry) startSteward() *steward {
	s := &steward{
		registry: r, shadows: newShadows(), trips: make(chan trip, RulesMax), quit: make(chan struct{}),
	}
	s.ended.Go(s.runShadows)
	s.ended.Go(s.runTrips)
	return s
}

// stop ends the steward after what it is doing.
func (s *steward) stop() {
	close(s.quit)
	s.ended.Wait()
}

// watch tells the steward about an evaluation of the order path, by the candidate
// or by the stable version beside one.
func (s *steward) watch(u *rule, byCandidate bool, in *abi.Input, out *abi.Verdict) {
	c := u.comparison
	if byCandidate {
		s.judge(c, in, out, in.Flags&abi.FlagQuote != 0)
		return
	}
	c.stable.add(in, out)
	if c.mode != ModeShadow || !c.takes(in.UserID) {
		return
	}
	job := s.shadows.take(u)
	if job == nil {
		return
	}
	input, err := in.Append(job.input[:0])
	if err != nil {
		s.shadows.give(job) // too large for the stable version, too
		return
	}
	job.input, job.stable = input, answerOf(out)
	s.shadows.add(job)
}

// ShadowsMissed returns how many orders of all rules the shadows had no time for.
func (r *Registry) ShadowsMissed() uint64 { return r.steward.shadows.missed.Load() }

func (s *steward) judge(c *comparison, in *abi.Input, out *abi.Verdict, free bool) {
	if why := c.judge(in, out, free, s.registry.config.Members()); why != "" {
		s.trips <- trip{comparison: c, why: why}
	}
}

func (s *steward) runShadows() {
	var out abi.Verdict
	for {
		select {
		case <-s.quit:
			return
		default:
		}
		job := s.shadows.next()
		if job == nil {
			select {
			case <-s.quit:
				return
			case <-s.shadows.more:
			}
			continue
		}
		begin := clockd.Mono()
		s.shadow(job, &out)
		s.shadows.done(job, clockd.Mono()-begin)
	}
}

func (s *steward) shadow(job *shadow, out *abi.Verdict) {
	c, v := job.rule.comparison, job.rule.candidate
	in, err := abi.DecodeInput(job.input)
	if err != nil || c.tripped.Load() {
		return
	}
	if !v.run(&in, out) || out.Fault == abi.FaultRuleInit {
		return // the rollout has ended, or the candidate was not evaluated
	}
	if out.Fault != abi.FaultNone && job.rule.counters.log.wants(&in, out) {
		s.registry.logs.offer(job.rule, out.Version, &in)
	}
	if now := answerOf(out); now != job.stable {
		c.differ.Add(1)
		c.note(&Difference{in.Now, string(in.DealID), string(in.UserID), abi.Digest(job.input), job.stable, now})
	}
	s.judge(c, &in, out, in.Flags&abi.FlagQuote != 0 || !job.stable.priced())
	c.compared.Add(1) // last: who counts it counts all the rest
}

func (s *steward) runTrips() {
	for {
		select {
		case <-s.quit:
			return
		case t := <-s.trips:
			s.giveUp(t)
		}
	}
}

// giveUp stores a rollback, or has it tried again later. Until then the candidate sees no
// orders here, and after a restart it is judged anew.
func (s *steward) giveUp(t trip) {
	err := s.registry.giveUp(s.registry.life, t.comparison, t.why)
	if err == nil || errors.Is(err, ErrNothingToChange) {
		return
	}
	if !t.again {
		s.registry.config.Logger.Error("a rollback could not be stored, and is tried again", "merchant", t.comparison.key.merchant,
			"rule", t.comparison.key.id, "why", t.why, "error", err)
	}
	t.again = true
	s.ended.Go(func() {
		if s.registry.config.Sleep(s.registry.life, tripEvery) != nil {
			return
		}
		select {
		case s.trips <- t:
		case <-s.quit:
		}
	})
}
