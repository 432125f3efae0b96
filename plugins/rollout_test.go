package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

var (
	faulty  = gastest.Rule("unreachable").Encode()
	refuses = gastest.Rule("i32.const 4096 i32.const 2 i32.store16 1 0" + gastest.Result).Encode()
)

// buy prices an order of 10,000 by a user.
func buy(r *plugins.Registry, user int) *abi.Verdict {
	var v abi.Verdict
	name := fmt.Appendf(nil, "user-%d", user)
	r.Evaluate("acme", "sale", &abi.Input{Now: now, Subtotal: 10_000, UnitPrice: 10_000, Quantity: 1, DealID: []byte("d"), UserID: name}, &v)
	return &v
}

// eventually waits for what goes on beside the order path.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}

// withCandidate is a registry whose rule "sale" takes 1,000 off in version 1, and
// whose version 2 is a candidate.
func withCandidate(t *testing.T, candidate []byte, change plugins.Change) *plugins.Registry {
	t.Helper()
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(1000))
	pin(t, r, plugins.Change{Stable: 1})
	upload(t, r, "acme", "sale", candidate)
	change.Stable, change.Candidate = 1, 2
	pin(t, r, change)
	return r
}

func pin(t *testing.T, r *plugins.Registry, change plugins.Change) {
	t.Helper()
	if _, err := r.SetRollout(t.Context(), "ann", "acme", "sale", change); err != nil {
		t.Fatal(err)
	}
}

func rollout(t *testing.T, r *plugins.Registry) plugins.Rollout {
	t.Helper()
	rule, err := r.Rule(t.Context(), "acme", "sale")
	if err != nil {
		t.Fatal(err)
	}
	return rule.Rollout
}

func lastAudit(t *testing.T, r *plugins.Registry) (last plugins.Audit) {
	t.Helper()
	if err := r.Audits(t.Context(), "acme", "sale", 0, func(a plugins.Audit) error { last = a; return nil }); err != nil {
		t.Fatal(err)
	}
	return last
}

// TestCanary: a share of users, always the same ones, and the rest as before.
func TestCanary(t *testing.T) {
	const users = 5_000
	r := withCandidate(t, fixed(1100), plugins.Change{Mode: plugins.ModeCanary, Percent: 10})
	seen := map[int]bool{}
	for user := range users {
		v := buy(r, user)
		if want := map[uint32]int64{1: 1000, 2: 1100}[v.Version]; v.Discount != want {
			t.Fatalf("version %d takes %d off", v.Version, v.Discount)
		}
		if v.Trial != (v.Version == 2) {
			t.Fatalf("version %d, as a candidate %t", v.Version, v.Trial)
		}
		if again := buy(r, user); again.Version != v.Version {
			t.Fatalf("user %d gets version %d, then %d", user, v.Version, again.Version)
		}
		seen[user] = v.Version == 2
	}
	share := 0
	for _, candidate := range seen {
		if candidate {
			share++
		}
	}
	if share < users*8/100 || share > users*12/100 {
		t.Errorf("%d of %d users see the candidate", share, users)
	}
	pin(t, r, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 30})
	for user := range users {
		if buy(r, user).Version == 1 && seen[user] {
			t.Fatalf("user %d no longer sees the candidate that more users see", user)
		}
	}
	c, err := r.Compare("acme", "sale")
	if err != nil || c.Candidate.DiscountPoints != 1100 || c.Stable.DiscountPoints != 1000 || c.Stable.Orders+c.Candidate.Orders != users {
		t.Fatalf("%+v %v", c, err)
	}
	if o, err := r.Promote(t.Context(), "ann", "it works", "acme", "sale"); err != nil || o != (plugins.Rollout{Stable: 2, Previous: 1, Pinned: true}) {
		t.Fatalf("%+v %v", o, err)
	}
	if a := lastAudit(t, r); a.Action != plugins.ActionPromote || a.From != 1 || a.To != 2 || a.Why != "it works" || a.By != "ann" {
		t.Fatalf("%+v", a)
	}
	if c, err := r.Compare("acme", "sale"); c != nil || err != nil {
		t.Fatal("a comparison outlives its rollout", err)
	}
}

// TestShadow: the candidate runs on the same orders, and no shopper sees it.
func TestShadow(t *testing.T) {
	r := withCandidate(t, fixed(1001), plugins.Change{Mode: plugins.ModeShadow})
	const orders = 2_000
	for user := range orders {
		if v := buy(r, user); v.Version != 1 || v.Discount != 1000 {
			t.Fatalf("a shopper sees version %d", v.Version)
		}
	}
	var c *plugins.Comparison
	eventually(t, "every order is compared or missed", func() bool {
		var err error
		if c, err = r.Compare("acme", "sale"); err != nil {
			t.Fatal(err)
		}
		return c.Compared+c.Missed == orders
	})
	if c.Different != c.Compared || c.Compared == 0 || c.Candidate.Orders != c.Compared || len(c.Differences) == 0 || len(c.Differences) > plugins.DifferencesKept {
		t.Fatalf("%+v", c)
	}
	d := c.Differences[0]
	if d.Stable.Discount != 1000 || d.Candidate.Discount != 1001 || d.Deal != "d" || !strings.HasPrefix(d.User, "user-") || d.Digest == 0 || d.At != now {
		t.Fatalf("%+v", d)
	}
	if o, err := r.Rollback(t.Context(), "bob", "no", "acme", "sale"); err != nil || o.Candidate != 0 || o.Stable != 1 {
		t.Fatalf("%+v %v", o, err)
	}
	if a := lastAudit(t, r); a.Action != plugins.ActionRollback || a.From != 2 || a.To != 1 {
		t.Fatalf("%+v", a)
	}
}

// TestAutomaticRollback: a candidate that leaves its bounds is gone within 200
// orders and 2 s, for good, and the audit says why.
func TestAutomaticRollback(t *testing.T) {
	for name, c := range map[string]struct {
		candidate []byte
		bounds    *plugins.Bounds
		within    int // of the candidate's orders
		why       string
	}{
		"faults":     {faulty, nil, 2, "2 of 2 orders faulted; at most 1 % may"},
		"no faults":  {faulty, &plugins.Bounds{DiscountMax: 100}, 1, "1 of 1 orders faulted; at most 0 % may"},
		"rejections": {refuses, nil, 33, "33 of 33 orders were rejected; at most 20 % may be"},
		"generous":   {fixed(5100), nil, 20, "51.00 % off on average of 20 orders; 0 to 50 % may be"},
		"mean":       {fixed(1), &plugins.Bounds{DiscountMin: 5, DiscountMax: 20}, 20, "0.01 % off on average of 20 orders; 5 to 20 % may be"},
	} {
		for _, mode := range []plugins.Mode{plugins.ModeCanary, plugins.ModeShadow} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				r := withCandidate(t, c.candidate, plugins.Change{Mode: mode, Percent: 100, Bounds: c.bounds})
				seen, begin := 0, time.Now()
				eventually(t, "the candidate is given up", func() bool {
					if buy(r, seen).Version == 2 {
						seen++
					}
					return rollout(t, r).Candidate == 0
				})
				if took := time.Since(begin); took > 10*time.Second { // 2 s, if the machine has nothing else to do
					t.Errorf("it took %s", took)
				}
				if mode == plugins.ModeCanary && seen != c.within || mode == plugins.ModeShadow && seen != 0 {
					t.Errorf("%d shoppers saw it", seen)
				}
				a := lastAudit(t, r)
				if a.Action != plugins.ActionAutoRollback || a.By != "doorbuster" || a.From != 2 || a.To != 1 || a.Why != c.why || a.At != now {
					t.Errorf("%+v", a)
				}
				if v := buy(r, 1); v.Version != 1 {
					t.Errorf("version %d", v.Version)
				}
			})
		}
	}
}

// TestCandidateThatTurnsBad: what was well for long does not excuse it.
func TestCandidateThatTurnsBad(t *testing.T) {
	r := withCandidate(t, turnsBad(), plugins.Change{Mode: plugins.ModeCanary, Percent: 100})
	at := func(stamp int64) *abi.Verdict {
		var v abi.Verdict
		r.Evaluate("acme", "sale", &abi.Input{Now: stamp, Subtotal: 10_000, Quantity: 1, UserID: []byte("u")}, &v)
		return &v
	}
	for range 1_099 {
		if v := at(now); v.Version != 2 || v.Discount != 1000 {
			t.Fatalf("%+v", v)
		}
	}
	bad := 0
	for ; at(now+1).Version == 2; bad++ {
		if bad > 200 {
			t.Fatal("200 orders were priced wrongly")
		}
	}
	if bad < plugins.SampleOrders {
		t.Errorf("%d orders are too few to judge by", bad)
	}
}

// turnsBad takes 6,000 off orders that are stamped after now, otherwise 1,000.
func turnsBad() []byte {
	code := fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const 6000 i64.const 1000 i32.const 8192 i64.load 3 8 i64.const %d raw 5a select i64.store 3 8", now+1)
	return gastest.Rule(code + gastest.Result).Encode()
}

// TestClusterRollsBackWithin200Orders: whatever nodes there are, all of them together let a
// candidate that turns bad price fewer than 200 orders more, even if none hears of another's
// rollback.
func TestClusterRollsBackWithin200Orders(t *testing.T) {
	for members := 1; members <= 12; members++ {
		tables := journaltest.NewMemory().Tables()
		nodes := make([]*plugins.Registry, members)
		for n := range nodes {
			nodes[n] = start(t, plugins.Config{Tables: tables, Members: func() int { return members }, Host: host.Config{Instances: 1}})
		}
		upload(t, nodes[0], "acme", "sale", fixed(1000))
		pin(t, nodes[0], plugins.Change{Stable: 1})
		upload(t, nodes[0], "acme", "sale", turnsBad())
		pin(t, nodes[0], plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100})
		at := func(r *plugins.Registry, stamp int64) bool {
			var v abi.Verdict
			r.Evaluate("acme", "sale", &abi.Input{Now: stamp, Subtotal: 10_000, Quantity: 1, UserID: []byte("u")}, &v)
			return v.Version == 2
		}
		for n, r := range nodes {
			if err := r.Refresh(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			for range 300 + 7*n { // and windows end at different orders
				if !at(r, now) {
					t.Fatal("the candidate is gone too early")
				}
			}
		}
		bad := 0
		for left := members; left > 0; {
			left = members
			for _, r := range nodes {
				if at(r, now+1) {
					bad++
				} else {
					left--
				}
			}
			if bad > 200 {
				t.Fatalf("%d nodes priced more than 200 orders wrongly", members)
			}
		}
	}
}

// TestOneRejectionEndsNoCandidate: also where each of many nodes judges few orders, unless
// none may be rejected.
func TestOneRejectionEndsNoCandidate(t *testing.T) {
	// It rejects orders of two.
	twos := gastest.Rule("i32.const 4096 i32.const 8192 i32.load 2 40 i32.store16 1 0" + gastest.Result).Encode()
	for _, members := range []int{1, 3, 40, 100} {
		for most, rejections := range map[int]int{0: 1, 1: 2} { // that end it
			r := start(t, plugins.Config{Tables: journaltest.NewMemory().Tables(), Members: func() int { return members }, Host: host.Config{Instances: 1}})
			upload(t, r, "acme", "sale", fixed(1000))
			pin(t, r, plugins.Change{Stable: 1})
			upload(t, r, "acme", "sale", twos)
			pin(t, r, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100, Bounds: &plugins.Bounds{RejectMax: most, DiscountMax: 100}})
			for n := range rejections {
				var v abi.Verdict
				r.Evaluate("acme", "sale", &abi.Input{Now: now, Subtotal: 10_000, Quantity: 2, UserID: fmt.Appendf(nil, "u-%d", n)}, &v)
				if v.Version != 2 {
					t.Errorf("%d members, %d %% may be rejected: it is gone after %d rejections", members, most, n)
				}
			}
			eventually(t, "the candidate is given up", func() bool { return rollout(t, r).Candidate == 0 })
		}
	}
}

// TestWindowSlides: any successive orders are judged together, and none for ever.
func TestWindowSlides(t *testing.T) {
	at := plugins.Change{Mode: plugins.ModeShadow, Bounds: &plugins.Bounds{RejectMax: 25, DiscountMax: 100}}
	buys := func(r *plugins.Registry, quantity uint32, orders int) {
		c, err := r.Compare("acme", "sale")
		if err != nil || c == nil {
			return
		}
		for seen := c.Candidate.Orders; orders > 0; orders-- {
			var v abi.Verdict
			r.Evaluate("acme", "sale", &abi.Input{Now: now, Subtotal: 10_000, Quantity: quantity, UserID: []byte("u")}, &v)
			seen++
			eventually(t, "the shadow has seen the order", func() bool {
				c, err := r.Compare("acme", "sale")
				return err != nil || c == nil || c.Candidate.Orders == seen
			})
		}
	}
	// It refuses orders of two.
	twos := gastest.Rule("i32.const 4096 i32.const 8192 i32.load 2 40 i32.store16 1 0" + gastest.Result).Encode()
	most := plugins.WindowOrders * at.Bounds.RejectMax / 100
	r := withCandidate(t, twos, at)
	for range 3 {
		buys(r, 2, most)
		buys(r, 1, plugins.WindowOrders-most)
	}
	if rollout(t, r).Candidate == 0 {
		t.Fatal("it is gone, and was never outside of its bounds")
	}
	buys(r, 1, plugins.WindowOrders-most/2)
	buys(r, 2, most+1)
	eventually(t, "the candidate is given up", func() bool { return rollout(t, r).Candidate == 0 })
}

// TestRollbackIsStoredInTheEnd: what fails is tried again.
func TestRollbackIsStoredInTheEnd(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	var healthy atomic.Bool
	healthy.Store(true)
	tries := make(chan struct{})
	r := start(t, plugins.Config{
		Tables: unwritable{tables, &healthy}, Host: host.Config{Instances: 1},
		Sleep: func(ctx context.Context, d time.Duration) error {
			if d > time.Second {
				<-ctx.Done()
				return ctx.Err()
			}
			select {
			case tries <- struct{}{}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	upload(t, r, "acme", "sale", fixed(1000))
	pin(t, r, plugins.Change{Stable: 1})
	upload(t, r, "acme", "sale", faulty)
	pin(t, r, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100})
	healthy.Store(false)
	for user := range 2 {
		buy(r, user)
	}
	<-tries
	<-tries
	if v := buy(r, 3); v.Version != 1 || rollout(t, r).Candidate != 2 {
		t.Fatalf("version %d, %+v", v.Version, rollout(t, r))
	}
	healthy.Store(true)
	eventually(t, "the rollback is stored", func() bool {
		select {
		case <-tries:
		default:
		}
		return rollout(t, r).Candidate == 0
	})
	if a := lastAudit(t, r); a.Action != plugins.ActionAutoRollback {
		t.Fatalf("%+v", a)
	}
}

// unwritable tables refuse changes unless they are healthy.
type unwritable struct {
	journal.Tables
	healthy *atomic.Bool
}

func (u unwritable) ApplyIf(ctx context.Context, expected []journal.Expectation, mutations []journal.Mutation, durable bool) error {
	if !u.healthy.Load() {
		return errDisk
	}
	return u.Tables.ApplyIf(ctx, expected, mutations, durable)
}

// TestCandidateSurvivesARestart: and its rollback does.
func TestCandidateSurvivesARestart(t *testing.T) {
	store := journaltest.NewMemory()
	r := open(t, store.Tables())
	upload(t, r, "acme", "sale", fixed(1000))
	pin(t, r, plugins.Change{Stable: 1})
	upload(t, r, "acme", "sale", faulty)
	bounds := plugins.Bounds{FaultMax: 3, DiscountMax: 100}
	pin(t, r, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100, Bounds: &bounds, Why: "try"})
	want := plugins.Rollout{Stable: 1, Pinned: true, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100, Bounds: bounds}
	r = open(t, store.Tables())
	if o := rollout(t, r); o != want {
		t.Fatalf("%+v", o)
	}
	if a := lastAudit(t, r); a.Seq != 4 || a.Version != 2 || a.Percent != 100 || a.Why != "try" || a.Action != plugins.ActionCanary {
		t.Fatalf("%+v", a)
	}
	told := make(chan string, 1)
	r, err := plugins.New(t.Context(), plugins.Config{
		Tables: store.Tables(), Now: func() int64 { return now },
		Changed: func(merchant, id string) { told <- merchant + "/" + id },
	})
	if err != nil {
		t.Fatal(err)
	}
	user := 0
	eventually(t, "the candidate is given up", func() bool { user++; buy(r, user); return rollout(t, r).Candidate == 0 })
	if of := <-told; of != "acme/sale" {
		t.Error(of)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, store.Tables())
	if o := rollout(t, r); o != (plugins.Rollout{Stable: 1, Pinned: true}) {
		t.Fatalf("%+v", o)
	}
	if a := lastAudit(t, r); a.Seq != 5 || a.Action != plugins.ActionAutoRollback || a.From != 2 || a.Why == "" {
		t.Fatalf("%+v", a)
	}
	n := 0
	if err := r.Audits(t.Context(), "acme", "sale", 3, func(plugins.Audit) error { n++; return nil }); err != nil || n != 2 {
		t.Fatal(n, err)
	}
}

func TestRolloutRefusals(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(1))
	upload(t, r, "acme", "sale", fixed(2))
	for name, c := range map[string]struct {
		change plugins.Change
		want   error
	}{
		"mode":              {plugins.Change{Stable: 1, Candidate: 2, Mode: "blue"}, plugins.ErrBadRollout},
		"no mode":           {plugins.Change{Stable: 1, Candidate: 2}, plugins.ErrBadRollout},
		"percent alone":     {plugins.Change{Stable: 1, Percent: 5}, plugins.ErrBadRollout},
		"same":              {plugins.Change{Stable: 1, Candidate: 1, Mode: plugins.ModeShadow}, plugins.ErrBadRollout},
		"none":              {plugins.Change{Stable: 1, Mode: plugins.ModeShadow}, plugins.ErrBadRollout},
		"0 percent":         {plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary}, plugins.ErrBadRollout},
		"101 percent":       {plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 101}, plugins.ErrBadRollout},
		"bound":             {plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeShadow, Bounds: &plugins.Bounds{FaultMax: 101}}, plugins.ErrBadRollout},
		"negative bound":    {plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeShadow, Bounds: &plugins.Bounds{RejectMax: -1}}, plugins.ErrBadRollout},
		"crossed bounds":    {plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeShadow, Bounds: &plugins.Bounds{DiscountMin: 2, DiscountMax: 1}}, plugins.ErrBadRollout},
		"why":               {plugins.Change{Stable: 1, Why: strings.Repeat("x", plugins.WhyBytesMax+1)}, plugins.ErrBadRollout},
		"unknown candidate": {plugins.Change{Stable: 1, Candidate: 3, Mode: plugins.ModeShadow}, plugins.ErrVersionNotFound},
		"unknown stable":    {plugins.Change{Candidate: 2, Mode: plugins.ModeShadow}, plugins.ErrVersionNotFound},
	} {
		if _, err := r.SetRollout(t.Context(), "", "acme", "sale", c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := r.Compare("acme", "nothing"); !errors.Is(err, plugins.ErrRuleNotFound) {
		t.Error(err)
	}
	expect(t, r, "acme", "sale", 2, 2)
}

// TestRolloutsDoNotAllocate: neither a canary nor a shadow does, on the order path.
func TestRolloutsDoNotAllocate(t *testing.T) {
	for _, mode := range []plugins.Mode{plugins.ModeCanary, plugins.ModeShadow} {
		r := withCandidate(t, fixed(1001), plugins.Change{Mode: mode, Percent: 50})
		in := &abi.Input{Subtotal: 10_000, UnitPrice: 10_000, Quantity: 1, DealID: []byte("deal")}
		users := make([][]byte, 64)
		for n := range users {
			users[n] = fmt.Appendf(nil, "user-%d", n)
		}
		var v abi.Verdict
		n := 0
		run := func() {
			in.UserID = users[n%len(users)]
			n++
			r.Evaluate("acme", "sale", in, &v)
		}
		if mode == plugins.ModeShadow { // until nothing is under way, and for the buffers to have grown
			for range 4_000 {
				run()
			}
		}
		// A shadow's own work allocates, on another goroutine: what is counted here is a
		// mean over very many orders, most of which the shadow has no time for.
		if got := testing.AllocsPerRun(20_000, run); got >= 1 {
			t.Errorf("%s: %v allocations", mode, got)
		}
	}
}

// TestSlowShadow: another merchant's orders are compared, each of them, while one has
// more of them than there is time for.
func TestSlowShadow(t *testing.T) {
	const orders = 100
	r := withCandidate(t, fixed(1001), plugins.Change{Mode: plugins.ModeShadow})
	slow := gastest.Rule("loop void br 0 end unreachable").Encode() // until its fuel is used up
	upload(t, r, "slow", "sale", fixed(1))
	for n, change := range []plugins.Change{{Stable: 1}, {Stable: 1, Candidate: 2, Mode: plugins.ModeShadow, Bounds: &plugins.Bounds{FaultMax: 100, RejectMax: 100, DiscountMax: 100}}} {
		if n == 1 {
			if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "slow", RuleID: "sale", Wasm: slow, FuelLimit: abi.FuelMax}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.SetRollout(t.Context(), "ann", "slow", "sale", change); err != nil {
			t.Fatal(err)
		}
	}
	for user := range 2_000 {
		price(r, "slow", "sale")
		if user%(2_000/orders) == 0 {
			buy(r, user)
		}
	}
	c := new(plugins.Comparison)
	eventually(t, "every order is compared", func() (all bool) {
		var err error
		if c, err = r.Compare("acme", "sale"); err != nil || c.Missed > 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		return c.Compared == orders
	})
	if c, err := r.Compare("slow", "sale"); err != nil || c.Missed == 0 || r.ShadowsMissed() != c.Missed {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestUnusedVersionsAreUnloaded: what no rollout refers to leaves memory, runs when
// somebody asks for it, and leaves again.
func TestUnusedVersionsAreUnloaded(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	const versions = 3 * plugins.LoadedMax
	for n := range versions {
		upload(t, r, "acme", "sale", fixed(n+1))
	}
	if n := r.Loaded(); n != 2 { // the house's, and the newest
		t.Fatalf("%d versions are loaded", n)
	}
	for range 2 {
		for n := range uint32(versions) {
			e, err := r.EvaluateVersion(t.Context(), "acme", "sale", n+1, &abi.Input{Subtotal: 10_000})
			if err != nil || e.Discount != int64(n+1) || e.Verdict.Version != n+1 {
				t.Fatalf("version %d: %+v %v", n+1, e, err)
			}
		}
		if n := r.Loaded(); n > plugins.LoadedMax+2 {
			t.Fatalf("%d versions are loaded", n)
		}
	}
	expect(t, r, "acme", "sale", versions, versions)
	for n := range uint32(versions) { // rolled out while others make room for them
		pin(t, r, plugins.Change{Stable: n + 1})
		expect(t, r, "acme", "sale", int64(n+1), n+1)
	}
	if n := r.Loaded(); n > plugins.LoadedMax+2 {
		t.Fatalf("%d versions are loaded", n)
	}
}

// TestQuota: a merchant's versions are bounded, and nobody else's are touched.
func TestQuota(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	big := gastest.Rule(gastest.Result)
	up := func(n int) error {
		big.Custom = map[string]string{"x": strings.Repeat("x", 4<<20-1_000) + fmt.Sprint(n)}
		_, _, err := r.Upload(context.Background(), plugins.Upload{Merchant: "acme", RuleID: fmt.Sprintf("r-%d", n), Wasm: big.Encode()})
		return err
	}
	for n := range plugins.MerchantBytesMax / (4 << 20) {
		if err := up(n); err != nil {
			t.Fatal(n, err)
		}
	}
	if err := up(99); !errors.Is(err, plugins.ErrTooMany) || !strings.Contains(err.Error(), "256 MiB") {
		t.Fatal(err)
	}
	upload(t, r, "bolt", "sale", fixed(1))
}

// TestOneShopperEndsNoCanary: an order that the candidate rejects is free to repeat.
func TestOneShopperEndsNoCanary(t *testing.T) {
	for name, bad := range map[string][]byte{"rejects": refuses, "faults": faulty} {
		t.Run(name, func(t *testing.T) {
			r := withCandidate(t, bad, plugins.Change{Mode: plugins.ModeCanary, Percent: 100})
			for range 10 * plugins.WindowOrders {
				if v := buy(r, 7); v.Version != 2 {
					t.Fatal("one user has ended it")
				}
			}
			for user := range 2 * plugins.WindowOrders {
				if buy(r, user).Version == 1 {
					return
				}
			}
			t.Fatal("200 users have not")
		})
	}
}

// TestOneShopperEndsNoCandidateForNothing: neither by quotes, nor by orders that the stable
// version refuses. Many shoppers do.
func TestOneShopperEndsNoCandidateForNothing(t *testing.T) {
	const refusal = "i32.const 4096 i32.const 2 i32.store16 1 0 "
	refusesToo := gastest.Rule(refusal + refusal + gastest.Result).Encode()
	for name, c := range map[string]struct {
		stable, candidate []byte
		mode              plugins.Mode
		flags             uint16
	}{
		"dear quotes":                 {fixed(1000), fixed(5100), plugins.ModeCanary, abi.FlagQuote},
		"dear quotes in the shadow":   {fixed(1000), fixed(5100), plugins.ModeShadow, abi.FlagQuote},
		"no quotes in the shadow":     {fixed(1000), refuses, plugins.ModeShadow, abi.FlagQuote},
		"what neither version takes":  {refuses, refusesToo, plugins.ModeShadow, 0},
		"what the stable one refuses": {refuses, fixed(5100), plugins.ModeShadow, 0},
		"what the stable one fails":   {faulty, refuses, plugins.ModeShadow, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, journaltest.NewMemory().Tables())
			upload(t, r, "acme", "sale", c.stable)
			pin(t, r, plugins.Change{Stable: 1})
			upload(t, r, "acme", "sale", c.candidate)
			pin(t, r, plugins.Change{Stable: 1, Candidate: 2, Mode: c.mode, Percent: 100})
			// ask returns whether the candidate is still there when it has seen the user.
			ask := func(user int) bool {
				before, err := r.Compare("acme", "sale")
				if err != nil || before == nil {
					return false
				}
				var v abi.Verdict
				name := fmt.Appendf(nil, "user-%d", user)
				r.Evaluate("acme", "sale", &abi.Input{Now: now, Subtotal: 10_000, Quantity: 1, Flags: c.flags, UserID: name}, &v)
				eventually(t, "the candidate has seen it", func() bool {
					now, err := r.Compare("acme", "sale")
					return err != nil || now == nil || now.Candidate.Orders > before.Candidate.Orders || v.Version == 1 && c.mode == plugins.ModeCanary
				})
				return v.Version == 2 || c.mode == plugins.ModeShadow
			}
			for range 2 * plugins.WindowOrders {
				if !ask(7) {
					t.Fatal("one user has ended it")
				}
			}
			if rollout(t, r).Candidate == 0 {
				t.Fatal("one user has ended it")
			}
			user := 0
			eventually(t, "the candidate is given up", func() bool {
				if user++; user <= plugins.WindowOrders {
					ask(user)
				}
				return rollout(t, r).Candidate == 0
			})
		})
	}
}
