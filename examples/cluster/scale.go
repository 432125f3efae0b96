package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	scaleTask  = "go tool task cluster:scale"
	scaleNodes = 3
	scaleDeals = 300
	scaleWarm  = 2 * time.Second
)

// scale is how to measure.
type scale struct {
	kit     *kit
	seconds int
	rounds  int
	share   float64  // of a core, that each node may use
	run     int      // numbers the loads: each has keys of its own
	all     []string // the deals
}

// sample is one load.
type sample struct {
	orders        int
	took          time.Duration
	nodes         time.Duration // CPU of all nodes
	database      time.Duration // CPU of PostgreSQL
	groups        float64       // commits of the nodes
	latency       []time.Duration
	peerRequests  float64 // that nodes sent to each other
	peerBatches   float64 // in which they travelled
	databaseCores float64 // in use
}

func (s *sample) rate() float64           { return float64(s.orders) / s.took.Seconds() }
func (s *sample) nodeMicros() float64     { return micros(s.nodes) / float64(s.orders) }
func (s *sample) databaseMicros() float64 { return micros(s.database) / float64(s.orders) }
func (s *sample) batch() float64          { return float64(s.orders) / s.groups }
func (s *sample) remote() float64         { return s.peerRequests / float64(s.orders) }
func (s *sample) p(q float64) float64 {
	return float64(quantile(s.latency, q)) / float64(time.Millisecond)
}
func (s *sample) peerBatch() float64 { return s.peerRequests / max(1, s.peerBatches) }
func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// String gives all figures on a line.
func (s *sample) String() string {
	return fmt.Sprintf("%5.0f orders/s  P50 %.2f ms  P99 %.1f ms  %.1f µs CPU of nodes, %.1f µs of PostgreSQL an order, %.1f orders a commit, %.0f %% remote, %.1f a batch",
		s.rate(), s.p(0.5), s.p(0.99), s.nodeMicros(), s.databaseMicros(), s.batch(), 100*s.remote(), s.peerBatch())
}

// requestsSent counts the commands that a node sent to others.
const requestsSent = "doorbuster_cluster_requests_sent_total"

// target is where a load goes to: a node, over so many connections.
type target struct {
	node        *node
	connections int
}

// load sends orders for the deals to the targets, as fast as the answers come or, if
// rate is not 0, on a schedule.
func (s *scale) load(ctx context.Context, to []target, deals []string, rate float64, length time.Duration) (sample, error) {
	s.run++
	before, err := s.counters(ctx)
	if err != nil {
		return sample{}, err
	}
	var wait sync.WaitGroup
	answered, errs := make([][]time.Duration, len(to)), make([]error, len(to))
	begin := clockd.Mono()
	for i, t := range to {
		wait.Go(func() { answered[i], errs[i] = s.loadOne(ctx, i, t, deals, rate/float64(len(to)), length) })
	}
	wait.Wait()
	took := time.Duration(clockd.Mono() - begin)
	after, err := s.counters(ctx)
	if err := errors.Join(err, errors.Join(errs...)); err != nil {
		return sample{}, err
	}
	latency := slices.Concat(answered...)
	return sample{
		orders: len(latency), took: took, latency: latency,
		nodes: after.nodes - before.nodes, database: after.database - before.database,
		groups: after.groups - before.groups, peerRequests: after.requests - before.requests, peerBatches: after.batches - before.batches,
		databaseCores: (after.database - before.database).Seconds() / took.Seconds(),
	}, nil
}

// loadOne returns the latencies of one node's orders. An order that is not accepted is
// an error: what is measured are accepted orders only.
func (s *scale) loadOne(ctx context.Context, i int, t target, deals []string, rate float64, length time.Duration) ([]time.Duration, error) {
	api, err := client.New(client.Config{Addr: t.node.host.addr(httpPort), Token: t.node.token, Connections: t.connections})
	if err != nil {
		return nil, err
	}
	defer api.Close()
	next := func(n int, body, key []byte) (b, k []byte) {
		body = fmt.Appendf(body, `{"deal_id":%q,"user_id":"u-%d","quantity":%d}`, deals[n%len(deals)], n*7919%100_000, 1+n%3)
		return body, fmt.Appendf(key, "r%d-%d-%d", s.run, i, n)
	}
	seen := make([][]time.Duration, t.connections)
	refused := make([]int, t.connections)
	_, err = api.Run(ctx, client.Load{Length: length, Rate: rate, Next: next, Observe: func(conn, status int, latency time.Duration, _ []byte) {
		if status != 201 {
			refused[conn]++
			return
		}
		seen[conn] = append(seen[conn], latency)
	}})
	for _, n := range refused {
		if n > 0 && err == nil {
			err = fmt.Errorf("%s did not accept an order", t.node.host.name)
		}
	}
	return slices.Concat(seen...), err
}

// counters are what has been used and done so far.
type counters struct {
	nodes, database           time.Duration
	groups, requests, batches float64
}

func (s *scale) counters(ctx context.Context) (c counters, err error) {
	for _, n := range s.kit.balanced() {
		used, err := cpuOf(n.cmd.Process.Pid)
		if err != nil {
			return c, err
		}
		c.nodes += used
		metrics, err := get(ctx, "http://"+n.host.addr(adminPort)+"/metrics")
		if err != nil {
			return c, err
		}
		c.groups += sumOf(metrics, "doorbuster_journal_batch_events_count")
		c.requests += sumOf(metrics, requestsSent)
		c.batches += sumOf(metrics, "doorbuster_cluster_batches_sent")
	}
	c.database, err = cpuOfAll("postgres")
	return c, err
}

// sumOf adds up the values of a metric over its labels; 0 if there is none.
func sumOf(metrics, name string) (total float64) {
	for line := range strings.Lines(metrics) {
		rest, found := strings.CutPrefix(line, name)
		if !found || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err == nil {
			total += value
		}
	}
	return total
}

// measureScale measures 1, 2 and 3 nodes that each have the same share of a core, and
// then the cost of a hop, and writes the page.
func measureScale(ctx context.Context, p plan, s scale, out io.Writer, markdown string) error {
	if !p.spaces {
		return errors.New("measuring takes namespaces, to know whose CPU is whose")
	}
	p.nodes, p.standby, p.direct, p.pinned = scaleNodes, false, true, true
	m := &measured{share: s.share, seconds: s.seconds, rounds: s.rounds}
	k, err := newKit(ctx, p, out)
	err = errors.Join(err, func() error {
		if err != nil {
			return nil
		}
		s.kit = k
		return s.measure(ctx, m)
	}())
	if err := errors.Join(err, k.close(err != nil)); err != nil {
		return err
	}
	text := m.section()
	fmt.Fprint(out, "\n", text)
	return page.WriteSection(markdown, scaleTask, text)
}

func (s *scale) measure(ctx context.Context, m *measured) (err error) {
	if err := errors.Join(s.create(ctx), s.hops(ctx, m, hopRate, [2]string{steadyLocal, steadyRemote})); err != nil {
		return err
	}
	end, err := s.confine()
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	return errors.Join(s.hops(ctx, m, 0, [2]string{fullLocal, fullRemote}), s.ratios(ctx, m))
}

func (s *scale) create(ctx context.Context) error {
	orders := lab.Orders{Deals: scaleDeals, Prefix: "s-"}
	for i := range scaleDeals {
		s.all = append(s.all, orders.Prefix+strconv.Itoa(i))
	}
	n := s.kit.victim()
	return orders.Create(ctx, client.Config{Addr: n.host.addr(httpPort), Token: n.token})
}

// split tells the deals that a node owns from those for which it asks another.
func (s *scale) split(ctx context.Context, n *node) (own, others []string, err error) {
	asked := func() (float64, error) {
		metrics, err := get(ctx, "http://"+n.host.addr(adminPort)+"/metrics")
		return sumOf(metrics, requestsSent), err
	}
	before, err := asked()
	for _, id := range s.all {
		if err != nil {
			return nil, nil, err
		}
		quote := fmt.Appendf(nil, `{"deal_id":%q,"user_id":"u","quantity":1}`, id)
		if _, err := n.api.Do(ctx, client.Call{Method: "POST", Path: "/api/v1/quotes", Body: quote}); err != nil {
			return nil, nil, err
		}
		var after float64
		if after, err = asked(); after > before {
			others = append(others, id)
		} else {
			own = append(own, id)
		}
		before = after
	}
	return own, others, err
}

const (
	connectionsEach = 64   // of the load, to each node
	hopRate         = 1500 // orders a second, far from what a node can do
)

// hops compares orders that reach their deal's owner at once with orders that reach it
// through another node, for as many deals: at a steady rate, or, if that is 0, as fast as
// the answers come.
func (s *scale) hops(ctx context.Context, m *measured, rate float64, names [2]string) error {
	to := []target{{s.kit.victim(), connectionsEach}}
	own, others, err := s.split(ctx, to[0].node)
	if err != nil {
		return err
	}
	most := min(len(own), len(others))
	if most == 0 {
		return fmt.Errorf("%s owns none or all of the deals", to[0].node.host.name)
	}
	for range s.rounds {
		for i, deals := range [][]string{own, others} {
			if err := s.round(ctx, m, names[i], to, deals[:most], rate); err != nil {
				return err
			}
		}
	}
	return nil
}

// round warms up, and takes a sample.
func (s *scale) round(ctx context.Context, m *measured, name string, to []target, deals []string, rate float64) error {
	if _, err := s.load(ctx, to, deals, rate, scaleWarm); err != nil {
		return err
	}
	got, err := s.load(ctx, to, deals, rate, time.Duration(s.seconds)*time.Second)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.kit.out, "%-24s %v\n", name, &got)
	m.add(name, got)
	return nil
}

// confine gives each node its share of a core, so that the nodes, and not the machine,
// are what is short. end takes the shares away, and the nodes with them.
func (s *scale) confine() (end func() error, err error) {
	var shares []*quota
	end = func() (err error) {
		for _, n := range s.kit.balanced() {
			n.kill()
		}
		for _, q := range shares {
			err = errors.Join(err, q.close())
		}
		return err
	}
	for i, n := range s.kit.balanced() {
		q, err := newQuota(fmt.Sprintf("doorbuster-%d", i), s.share)
		shares = append(shares, q)
		if err := errors.Join(err, q.add(n.cmd.Process.Pid)); err != nil {
			return end, err
		}
	}
	return end, nil
}

// ratios loads all nodes, and ends one after the other.
func (s *scale) ratios(ctx context.Context, m *measured) error {
	for {
		var to []target
		for _, n := range s.kit.balanced() {
			to = append(to, target{n, connectionsEach})
		}
		for range s.rounds {
			if err := s.round(ctx, m, strconv.Itoa(len(to)), to, s.all, 0); err != nil {
				return err
			}
		}
		if len(to) == 1 {
			return nil
		}
		last := to[len(to)-1].node
		s.kit.forget(last)
		if err := last.leave(ctx); err != nil {
			return err
		}
	}
}

// What was loaded besides 1, 2 and 3 nodes: one, for deals of its own and of others.
const (
	steadyLocal  = "its own deals, steady"
	steadyRemote = "others' deals, steady"
	fullLocal    = "its own deals"
	fullRemote   = "others' deals"
)

// measured is everything that was measured, by what was loaded.
type measured struct {
	share           float64
	seconds, rounds int
	samples         map[string][]sample
}

func (m *measured) add(name string, got sample) {
	if m.samples == nil {
		m.samples = make(map[string][]sample)
	}
	m.samples[name] = append(m.samples[name], got)
}

// median of a figure over the rounds.
func (m *measured) median(name string, figure func(*sample) float64) float64 {
	var values []float64
	for i := range m.samples[name] {
		values = append(values, figure(&m.samples[name][i]))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

func (m *measured) names() []string { return slices.Sorted(maps.Keys(m.samples)) }
