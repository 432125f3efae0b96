package gateway

import (
	"context"
	"testing"
)

// TestPlaces: nobody but an operator takes more than the share, and all that is
// taken is given back.
func TestPlaces(t *testing.T) {
	p := newPlaces(4, 2)
	ann, merchantAnn := &principal{role: shopper, name: []byte("ann")}, &principal{role: merchant, name: []byte("ann")}
	took := func(who *principal, want bool) {
		t.Helper()
		if p.full(who) == want || p.take(who) != want {
			t.Errorf("%s: want %v", holder(who), want)
		}
	}
	took(ann, true)
	took(ann, true)
	took(ann, false)
	took(merchantAnn, true)
	p.leave(merchantAnn)
	took(trusted, true)
	took(trusted, true)
	took(trusted, false) // there are no more
	took(merchantAnn, false)
	for _, who := range []*principal{ann, trusted, trusted} {
		p.leave(who)
	}
	if !p.run(ann, func() { took(ann, false) }) || len(p.taken) != 1 {
		t.Errorf("%v are taken", p.taken)
	}
	p.leave(ann)
	if must(t, p.wait(t.Context())); p.take(trusted) || len(p.taken) != 0 {
		t.Error("a place is left after the wait for all of them")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if p.wait(ended) == nil {
		t.Error("the wait did not end with its context")
	}
	if err := newPlaces(64, 2).wait(ended); err != nil {
		t.Errorf("all places are free: %v", err)
	}
}

// TestOneCallersShare: a shopper who opens stream after stream, and a merchant who
// asks for evaluation after evaluation, keep nobody out.
func TestOneCallersShare(t *testing.T) {
	g := newGuardedTuned(t, func(c *Config) { c.Streams, c.BacktestCPU = 2*streamsPart, 1 })
	g.as(g.operator).deal("d", "")
	id := g.as(g.operator).order("d", "ann", 1).want(201).text("order_id")
	ann, bob := g.issuer.shopper("ann"), g.issuer.shopper("bob")
	for range 2 {
		g.as(ann).follow(t, "d", "").want("", "stock")
	}
	g.as(ann).get("/api/v1/deals/d/events").refused(overloaded)
	g.as(bob).follow(t, "d", "").want("", "stock")

	must(t, g.server.pace.Slice(t.Context(), func() error { return nil })) // on this clock all others wait from now on
	waiting := func(who *principal) {
		go g.server.trials.run(who, func() { <-g.server.front.stopping.Done() })
	}
	for range trialsShare {
		waiting(&principal{role: shopper, name: []byte("ann")})
		waiting(&principal{role: merchant, name: []byte("acme")})
	}
	until(t, "the evaluations", func() bool { return len(g.server.trials.all) == 2*trialsShare })
	g.as(ann).get("/api/v1/orders/" + id + "/explain").refused(overloaded)
	g.as(g.acme).post("/api/v1/rules/tiered/versions/1/evaluate", "").refused(overloaded)
	g.as(g.acme).post("/api/v1/rules/tiered/versions/1/backtest", `{"deal_id":"d"}`).refused(overloaded)
	answered := make(chan answer)
	g.as(g.operator)
	go func() { answered <- g.get("/api/v1/orders/" + id + "/explain") }()
	until(t, "its turn", func() bool { return len(g.server.trials.all) == 2*trialsShare+1 })
	g.clock.Advance(lingerTime)
	(<-answered).want(200)
}
