package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// epochMs is the wall time at which every simulation begins.
const epochMs = int64(1_795_000_000_000)

// world is one machine, the process on it, and everybody who uses it.
type world struct {
	rng   *rand.Rand
	plan  plan
	cover coverage
	base  actors.Config // what the nodes of a run share

	// The machine.
	disk disk
	mono int64 // ns since the beginning
	wall int64 // ms, as the system's clock shows it

	// The process; node is nil while it is down.
	node     *actors.Node
	store    journal.Store // without faults
	clock    *clockd.Manual
	queue    []func() // turns of actors and background work that wait to be run
	doomed   bool     // Config.Fatal was told: the process must end
	readOnly bool
	draining bool
	ticked   int64 // mono of the clock's last tick
	owners   map[string]owner
	rivals   []rival

	// The users.
	step    int64
	shop    shop
	flights []*op // asked of this process and not yet answered

	calm    bool // nothing goes wrong any more
	deaths  int
	failure error
	log     io.Writer // the trace, if anybody wants to read it
	digest  interface {
		io.Writer
		Sum64() uint64
	}
}

// pebbleEvery is how many seeds there are to one with the journal on pebble,
// where a restart costs 30 ms.
const pebbleEvery = 16

func newWorld(seed uint64, base actors.Config, log io.Writer) *world {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	w := &world{
		rng: rng, plan: newPlan(rng), cover: coverage{}, base: base,
		wall: epochMs, owners: map[string]owner{}, log: log, digest: fnv.New64a(),
	}
	w.disk = &memoryDisk{store: journaltest.NewMemory()}
	if seed%pebbleEvery == 0 {
		w.disk = &pebbleDisk{fs: vfs.NewCrashableMem()}
	}
	w.shop = newShop(w)
	return w
}

// live is the whole of a simulation. It returns what was broken first.
func (w *world) live() error {
	for range w.plan.steps {
		if w.turn(); w.failure != nil {
			return w.failure
		}
	}
	if w.settle(); w.failure == nil {
		w.audit()
	}
	w.end()
	return w.failure
}

// turn is one step: one piece of the node's work, one question, one commit, or
// some time; and now and then a fault.
func (w *world) turn() {
	w.step++
	if w.node == nil {
		w.pass(time.Duration(w.rng.Int64N(int64(5 * time.Second))))
		w.boot()
		return
	}
	w.strike()
	if w.node == nil {
		return
	}
	switch x := w.rng.Float64(); {
	case x < w.plan.asks:
		w.run(w.ask)
	case x < w.plan.asks+0.15:
		w.run(func() { w.node.CommitGroup() })
	case x < w.plan.asks+0.25 || len(w.queue) == 0:
		w.run(func() { w.pass(w.someTime()) })
	default:
		w.runOne()
	}
	w.run(w.collect)
}

// strike lets happen what goes wrong by itself.
func (w *world) strike() {
	switch {
	case w.strikes(faultCrash):
		w.kill()
	case w.strikes(faultRival):
		w.takeOver()
	case w.strikes(faultReadOnly):
		w.readOnly = !w.readOnly
	case w.strikes(faultJump):
		by := time.Duration(w.rng.Int64N(int64(2*time.Hour))) - time.Hour
		w.wall += by.Milliseconds()
		w.clock.JumpWall(by)
	case w.strikes(faultStall):
		d := time.Duration(w.rng.Int64N(int64(20 * time.Second)))
		w.mono += int64(d)
		w.wall += d.Milliseconds()
		w.clock.Stall(d)
	case w.strikes(faultDrain):
		w.draining = true
		w.run(func() { _ = w.node.Drain(ended) }) // its first half: the rest is in the queue
	}
	w.rivalsWrite()
	// What an operator would see to ends soon: a full disk, a drained node.
	if w.readOnly && w.rng.IntN(30) == 0 {
		w.readOnly = false
	}
	if w.draining && w.rng.IntN(30) == 0 {
		w.kill()
	}
}

// ended is a context that nobody waits on.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// boot starts a process on what is on the disk.
func (w *world) boot() {
	w.run(func() {
		store, err := w.disk.mount(w.fatal)
		if err != nil {
			w.fail("mount: %w", err)
			return
		}
		floor, err := actors.ClockFloor(context.Background(), store.Tables(), "")
		if err != nil {
			w.fail("clock floor: %w", err)
			return
		}
		w.store, w.ticked = store, w.mono
		w.clock = clockd.NewManualConfig(w.wall, clockd.Config{Floor: floor})
		w.node, err = actors.NewNode(context.Background(), faultyStore{store, w}, w.clock.Clock(), w.config())
		if err != nil {
			w.fail("start: %w", err)
		}
	})
	if w.node != nil {
		w.note("up: %+v", w.node.Recovery().Events)
	}
}

func (w *world) config() actors.Config {
	cfg := w.base
	cfg.Rules, cfg.Fatal, cfg.Driver, cfg.Workers = w, w.fatal, w, 1
	cfg.InFlightMax, cfg.DealInFlightMax = 64, 32
	cfg.RuleFaultsMax = 3 // a simulated deal has few orders in ten seconds
	cfg.RequestTimeout, cfg.PassivateAfter = 5*time.Second, time.Hour
	if w.strikes(faultHurry) {
		cfg.RequestTimeout = 20 * time.Millisecond
	}
	if w.strikes(faultCrowd) {
		cfg.InFlightMax, cfg.DealInFlightMax = 16, 2+w.rng.IntN(8)
	}
	if w.strikes(faultIdle) {
		cfg.PassivateAfter = time.Duration(1+w.rng.IntN(1000)) * time.Millisecond
	}
	return cfg
}

func (w *world) fatal(err error) {
	w.note("fatal: %v", err)
	w.doomed = true
}

// Schedule, Throughput and Go implement actors.Driver: nothing runs until the
// simulation draws it.
func (w *world) Schedule(turn func()) { w.queue = append(w.queue, turn) }

// Throughput lets an actor empty its mailbox in one turn.
func (w *world) Throughput() int { return 1 << 30 }

// Go queues background work beside the actors' turns.
func (w *world) Go(work func()) { w.queue = append(w.queue, work) }

// runOne runs one piece of what waits.
func (w *world) runOne() {
	i := w.rng.IntN(len(w.queue))
	work := w.queue[i]
	w.queue = append(w.queue[:i], w.queue[i+1:]...)
	w.note("run %d of %d", i, len(w.queue)+1)
	w.run(work)
}

// run executes some of the process's work. The process may not survive it.
func (w *world) run(work func()) {
	defer func() {
		switch p := recover(); {
		case p == errKilled:
			w.kill()
		case p != nil:
			w.fail("panic: %v\n%s", p, debug.Stack())
		case w.doomed:
			w.kill()
		}
	}()
	work()
}

// kill ends the process, and with it all that was not on disk.
func (w *world) kill() {
	w.note("down")
	w.node, w.clock, w.store = nil, nil, nil
	w.queue, w.flights, w.rivals = nil, nil, nil
	w.doomed, w.draining = false, false
	w.deaths++
	clear(w.owners)
	if err := w.disk.crash(w.rng); err != nil {
		w.fail("crash: %w", err)
	}
}

// end takes the machine away.
func (w *world) end() {
	w.node = nil
	if err := w.disk.crash(w.rng); err != nil {
		w.fail("end: %w", err)
	}
}

// someTime draws a time to pass: mostly a few ticks, now and then enough for a
// reservation, a suspension or an idempotency key to run out.
func (w *world) someTime() time.Duration {
	switch x := w.rng.IntN(1000); {
	case x < 700:
		return time.Duration(1+w.rng.IntN(10)) * time.Millisecond
	case x < 900:
		return time.Duration(w.rng.IntN(500)) * time.Millisecond
	case x < 990:
		return time.Duration(w.rng.IntN(10_000)) * time.Millisecond
	case x < 998:
		return time.Duration(w.rng.IntN(300)) * time.Second
	}
	return 25 * time.Hour
}

// pass lets time pass. The clock must follow it, whatever the system's wall
// clock is set to.
func (w *world) pass(d time.Duration) {
	d = d.Truncate(time.Millisecond)
	w.mono += int64(d)
	w.wall += d.Milliseconds()
	if w.clock == nil {
		return
	}
	before := w.clock.Clock().Now()
	w.clock.Advance(d)
	now := w.clock.Clock().Now()
	elapsed := w.mono - w.ticked
	w.ticked = w.mono
	slew := elapsed/(1_000_000/clockd.SlewPPM) + int64(time.Millisecond)
	if off := (now.Wall-before.Wall)*int64(time.Millisecond) - elapsed; off < -slew || off > slew {
		w.fail("I10: %v passed and the clock went from %d to %d", time.Duration(elapsed), before.Wall, now.Wall)
	}
}

func (w *world) flip() bool { return w.rng.IntN(2) == 0 }

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	line := fmt.Appendf(nil, "%d %d "+format+"\n", append([]any{w.step, w.mono / 1_000_000}, args...)...)
	_, _ = w.digest.Write(line)
	if w.log != nil {
		_, _ = w.log.Write(line)
	}
}

// fail keeps the first thing that was broken.
func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("step %d: "+format, append([]any{w.step}, args...)...)
	}
}

// Evaluate implements deal.Rules.
func (w *world) Evaluate(_, rule string, in *abi.Input, out *abi.Verdict) {
	if w.strikes(faultSlowRule) {
		w.pass(time.Duration(w.rng.Int64N(int64(10 * time.Second))))
	}
	if w.strikes(faultPanic) {
		panic("a bug that the simulation planted in a rule")
	}
	out.Reset()
	out.Version, out.SHA256, out.Digest = 1, sha256.Sum256([]byte(rule)), digest(in)
	if w.strikes(faultRule) {
		out.Fault = abi.FaultOutOfFuel
		return
	}
	out.Output = rules[rule](in)
}

// settle is the calm after the faults: whatever waits is done, whatever is due
// happens, and nothing stays behind.
func (w *world) settle() {
	w.calm, w.readOnly = true, false
	if w.draining || w.rivalled() {
		w.kill()
	}
	for w.node == nil && w.failure == nil {
		w.boot()
	}
	// Longer than a suspension and than any reservation or group.
	for range 2 * holdMost / 1000 {
		w.pump()
		w.run(func() { w.pass(time.Second) })
	}
	w.pump()
	if w.failure != nil {
		return
	}
	if n := len(w.flights); n > 0 {
		w.fail("I14: %d requests are never answered, the first is %v", n, w.flights[0])
	}
	if used := w.node.Stats().Pool.InUse; used != 0 {
		w.fail("I12: %d seats are still in use", used)
	}
	w.shop.lastOrders(w)
}

// pump does everything that can be done without more time.
func (w *world) pump() {
	for round := 0; w.failure == nil; round++ {
		if round > 10_000 {
			w.fail("I14: the node never comes to rest")
		}
		worked := len(w.queue) > 0
		for len(w.queue) > 0 && w.failure == nil {
			w.runOne()
		}
		w.run(func() { worked = w.node.CommitGroup() > 0 || worked })
		w.run(w.collect)
		if !worked {
			return
		}
	}
}
