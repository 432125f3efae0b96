package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

// model says what a cluster of n nodes can do. Times are µs of CPU, or of waiting where
// it says so.
type model struct {
	local  float64 // of an order whose deal the node owns
	hop    float64 // that an order costs more when its deal is another node's, on both together
	event  float64 // of PostgreSQL for an order
	commit float64 // of PostgreSQL for a commit, whatever is in it
	group  float64 // waiting: from one commit of a node to its next, under load
}

// fit makes the model from what an order costs a busy node, what a hop costs more, and how PostgreSQL's
// cost of an order fell as more of them shared a commit.
func (m *measured) fit() model {
	var x, y []float64
	for _, name := range m.names() {
		for i := range m.samples[name] {
			s := &m.samples[name][i]
			x, y = append(x, 1/s.batch()), append(y, s.databaseMicros())
		}
	}
	event, commit := line(x, y)
	return model{
		local: m.median("1", (*sample).nodeMicros),
		hop:   m.median(fullRemote, (*sample).nodeMicros) - m.median(fullLocal, (*sample).nodeMicros),
		event: max(0, event), commit: max(0, commit),
		group: m.median("1", func(s *sample) float64 { return micros(s.took) / s.groups }),
	}
}

// line returns the line y = at0 + slope·x with the least squares.
func line(x, y []float64) (at0, slope float64) {
	n := float64(len(x))
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	slope = (n*sxy - sx*sy) / (n*sxx - sx*sx)
	return (sy - slope*sx) / n, slope
}

// nodeMicros is the CPU of an order on all nodes together: of n nodes each owns as
// many deals, and any of them is asked.
func (m *model) nodeMicros(n int) float64 {
	return m.local + m.hop*float64(n-1)/float64(n)
}

// nodesRate is the orders a second of n nodes with so many cores each, if nothing else
// is short.
func (m *model) nodesRate(n int, cores float64) float64 {
	return float64(n) * cores * 1e6 / m.nodeMicros(n)
}

// databaseCores is what PostgreSQL needs for that many orders a second of n nodes: each
// node commits at its own pace, however much there is to commit.
func (m *model) databaseCores(rate float64, n int) float64 {
	commits := min(rate, float64(n)*1e6/m.group)
	return (rate*m.event + commits*m.commit) / 1e6
}

// databaseRate is the orders a second for which PostgreSQL has the cores.
func (m *model) databaseRate(cores float64, n int) float64 {
	commits := float64(n) * 1e6 / m.group
	return max(0, (cores*1e6-commits*m.commit)/m.event)
}

// Sizes that the model is asked about.
const (
	modelNodeCores     = 4
	modelDatabaseCores = 32
)

// section is what the page says.
func (m *measured) section() string {
	var out strings.Builder
	fmt.Fprintf(&out, "`%s -- --seconds %d --rounds %d --share %g`: medians of the rounds, on %s, where the load and\nPostgreSQL run as well.\n\n",
		scaleTask, m.seconds, m.rounds, m.share, page.Machine())
	fmt.Fprintf(&out, "What a hop costs: one of %d nodes is asked over %d connections, for deals of its own and for those of the others. Steady:\nat %d orders a second. Otherwise as fast as the answers come, and each node may use %g of a core.\nEach node is pinned to one processor.\n\n", scaleNodes, connectionsEach, hopRate, m.share)
	out.WriteString("| | orders/s | P50 ms | P99 ms | CPU of nodes, µs/order | CPU of PostgreSQL, µs/order | orders a commit | orders and answers a batch between nodes |\n|---|---|---|---|---|---|---|---|\n")
	for _, name := range []string{steadyLocal, steadyRemote, fullLocal, fullRemote} {
		fmt.Fprintf(&out, "| %s | %.0f | %.2f | %.1f | %.0f | %.0f | %.1f | %.1f |\n", name, m.median(name, (*sample).rate),
			m.median(name, func(s *sample) float64 { return s.p(0.5) }), m.median(name, func(s *sample) float64 { return s.p(0.99) }),
			m.median(name, (*sample).nodeMicros), m.median(name, (*sample).databaseMicros), m.median(name, (*sample).batch), m.median(name, (*sample).peerBatch))
	}
	fit := m.fit()
	one := m.median("1", (*sample).rate)
	fmt.Fprintf(&out, "\nAll nodes are asked, as fast as the answers come, over %d connections each. Each may use %g of a core, so that nodes are\nwhat is short.\n\n", connectionsEach, m.share)
	out.WriteString("| nodes | orders/s | of one node | the model says | remote | CPU of nodes, µs/order | CPU of PostgreSQL, µs/order | its cores | orders a commit |\n|---|---|---|---|---|---|---|---|---|\n")
	for n := 1; n <= scaleNodes; n++ {
		name := strconv.Itoa(n)
		rate := m.median(name, (*sample).rate)
		fmt.Fprintf(&out, "| %d | %.0f | %.2f | %.2f | %.0f %% | %.0f | %.0f | %.2f | %.1f |\n", n, rate, rate/one, fit.nodesRate(n, 1)/fit.nodesRate(1, 1),
			100*m.median(name, (*sample).remote), m.median(name, (*sample).nodeMicros), m.median(name, (*sample).databaseMicros),
			m.median(name, func(s *sample) float64 { return s.databaseCores }), m.median(name, (*sample).batch))
	}
	out.WriteString(fit.predict())
	return out.String()
}

// predict tells the model in words, and what it says of clusters that are not here.
func (m *model) predict() string {
	var out strings.Builder
	fmt.Fprintf(&out, `
The model. An order costs the node that owns its deal %.0f µs of CPU, and both nodes together %.0f µs more if another
node was asked; of n nodes that is (n − 1)/n of the orders. PostgreSQL needs %.0f µs for each order and %.0f µs for each
commit, by a line through all of the above; a node commits every %v at the most, so what PostgreSQL
does for a commit grows with the nodes and not with the orders. Nodes with %d cores each, before a PostgreSQL
server with %d:

`, m.local, m.hop, m.event, m.commit, time.Duration(m.group*1000).Round(10*time.Microsecond), modelNodeCores, modelDatabaseCores)
	out.WriteString("| nodes | the nodes can do, orders/s | of n times one | PostgreSQL can do, orders/s | cores it needs for what the nodes can do | servers |\n|---|---|---|---|---|---|\n")
	for _, n := range []int{1, 3, 10, 100} {
		nodes := m.nodesRate(n, modelNodeCores)
		cores := m.databaseCores(nodes, n)
		fmt.Fprintf(&out, "| %d | %.0f | %.2f | %.0f | %.1f | %.0f |\n", n, nodes, nodes/float64(n)/m.nodesRate(1, modelNodeCores),
			m.databaseRate(modelDatabaseCores, n), cores, math.Ceil(cores/modelDatabaseCores))
	}
	return out.String()
}
