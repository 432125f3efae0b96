package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

// TestFit: measurements that were made from a model give that model back.
func TestFit(t *testing.T) {
	want := model{local: 50, hop: 30, event: 12, commit: 200, group: 5000}
	m := &measured{share: 0.2, seconds: 1, rounds: 1}
	for _, load := range []struct {
		name   string
		n      int
		micros float64
		batch  float64
	}{
		{steadyLocal, 1, 60, 8},
		{steadyRemote, 1, 99, 8},
		{fullLocal, 1, 50, 20},
		{fullRemote, 1, 80, 18},
		{"1", 1, want.nodeMicros(1), 20},
		{"2", 2, want.nodeMicros(2), 16},
		{"3", 3, want.nodeMicros(3), 15},
	} {
		const orders = 10_000
		groups := orders / load.batch
		m.add(load.name, sample{
			orders: orders, groups: groups, took: time.Duration(groups * want.group * 1000),
			nodes:    time.Duration(orders * load.micros * 1000),
			database: time.Duration((orders*want.event + groups*want.commit) * 1000),
		})
	}
	got := m.fit()
	for name, pair := range map[string][2]float64{
		"local": {got.local, want.local}, "hop": {got.hop, want.hop}, "event": {got.event, want.event}, "commit": {got.commit, want.commit}, "group": {got.group, want.group},
	} {
		if math.Abs(pair[0]-pair[1]) > 0.01 {
			t.Errorf("%s is %g, want %g", name, pair[0], pair[1])
		}
	}
	if text := m.section(); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Error(text)
	}
}

// TestModel: by hand, for two nodes of one core. An order costs 50 + 30/2 µs, so they do
// 2,000,000/65 a second; PostgreSQL commits 2 × 200 times a second.
func TestModel(t *testing.T) {
	m := model{local: 50, hop: 30, event: 12, commit: 200, group: 5000}
	rate := m.nodesRate(2, 1)
	if math.Abs(rate-30769.2) > 0.1 {
		t.Errorf("nodes: %g orders/s", rate)
	}
	if cores := m.databaseCores(rate, 2); math.Abs(cores-(rate*12+400*200)/1e6) > 1e-9 {
		t.Errorf("PostgreSQL: %g cores", cores)
	}
	if limit := m.databaseRate(1, 2); math.Abs(limit-(1e6-80_000)/12) > 0.1 {
		t.Errorf("PostgreSQL: %g orders/s on one core", limit)
	}
}

func TestSumOf(t *testing.T) {
	const metrics = "# HELP x of peers\nx_total{member=\"a\"} 3\nx_total{member=\"b\"} 4.5e+01\nx_total_more 7\nx 1\n"
	if got := sumOf(metrics, "x_total"); got != 48 {
		t.Errorf("x_total is %g", got)
	}
	if got := sumOf(metrics, "y"); got != 0 {
		t.Errorf("y is %g", got)
	}
}

func TestCount(t *testing.T) {
	ms := int64(time.Millisecond)
	r := count("x", []*op{
		{deal: "a", call: 1 * ms, ret: 2 * ms, status: 201}, // before the fault
		{deal: "a", call: 11 * ms, ret: 30 * ms, status: 409, failures: 2},
		{deal: "a", call: 12 * ms, ret: 14 * ms, status: 200},
		{deal: "b", call: 12 * ms, ret: 17 * ms, status: 200},
		{deal: "b", call: 13 * ms, failures: 1},
	}, 10*ms)
	if r.asked != 5 || r.acknowledged != 3 || r.refused != 1 || r.unknown != 1 || r.failed != 3 ||
		r.again != 7*time.Millisecond || r.longest != 19*time.Millisecond {
		t.Errorf("%+v", r)
	}
}
