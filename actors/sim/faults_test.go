package sim

import "math/rand/v2"

// fault is one thing that can go wrong.
type fault int

const (
	faultCrash    fault = iota // the power fails between two steps
	faultKill                  // the process dies before or after an operation of the journal
	faultTorn                  // the power fails during a sync
	faultCommit                // a commit fails, and may have reached the disk
	faultRival                 // another node takes a deal over, and may write to it
	faultReadOnly              // the disk is nearly full for a while
	faultLoad                  // a read of the journal fails
	faultTables                // a write of the lists or of a snapshot fails
	faultJump                  // the system's wall clock is set
	faultStall                 // the process gets no time
	faultSlowRule              // a rule takes its time
	faultRule                  // a rule runs out of fuel
	faultPanic                 // a bug in what an actor calls
	faultDrain                 // an operator begins to stop the node
	faultHurry                 // callers give up early
	faultCrowd                 // a node with few seats
	faultIdle                  // deals leave memory at once
	faults                     // their number
)

var faultNames = [faults]string{
	"crash", "kill", "torn sync", "failed commit", "rival", "read-only", "failed load", "failed tables",
	"wall jump", "stall", "slow rule", "rule fault", "panic", "drain", "hurry", "crowd", "passivation",
}

// ratesMost is how often each fault strikes at most, each time that it can.
var ratesMost = [faults]float64{
	faultCrash: 0.02, faultKill: 0.02, faultTorn: 0.1, faultCommit: 0.05, faultRival: 0.03, faultReadOnly: 0.02,
	faultLoad: 0.3, faultTables: 0.3, faultJump: 0.03, faultStall: 0.03, faultSlowRule: 0.2, faultRule: 0.3,
	faultPanic: 0.05, faultDrain: 0.01, faultHurry: 1, faultCrowd: 1, faultIdle: 1,
}

// plan is what a seed draws before it begins.
type plan struct {
	rates [faults]float64 // 0: not in this seed
	steps int
	deals int
	users int
	asks  float64 // share of the steps in which somebody asks something
}

func newPlan(rng *rand.Rand) plan {
	p := plan{
		steps: 200 + rng.IntN(800),
		deals: 1 + rng.IntN(3),
		users: 2 + rng.IntN(5),
		asks:  0.1 + 0.4*rng.Float64(),
	}
	if rng.IntN(10) == 0 {
		p.users = 500 // nobody comes twice
	}
	for f := range faults {
		if rng.IntN(3) == 0 {
			p.rates[f] = ratesMost[f] * (0.1 + 0.9*rng.Float64())
		}
	}
	return p
}

// strikes draws whether a fault happens now.
func (w *world) strikes(f fault) bool {
	rate := w.plan.rates[f]
	if w.calm || rate == 0 || w.rng.Float64() >= rate {
		return false
	}
	w.covered("fault", faultNames[f])
	w.note("fault: %s", faultNames[f])
	return true
}
