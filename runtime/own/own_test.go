package own

import (
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// order is a pooled request as the node uses it: numbers, a text, buffers.
type order struct {
	Cell
	id    uint64
	user  string
	body  []byte
	reply []byte
	sum   [4]byte
	extra struct{ quantity uint32 }
}

func (o *order) reset() {
	o.id, o.user, o.sum, o.extra.quantity = 0, "", [4]byte{}, 0
	o.body, o.reply = o.body[:0], o.reply[:0]
}

func newPool(t testing.TB, seats, reserve int) *Pool[order] {
	t.Helper()
	p, err := New(Config{Seats: seats, Reserve: reserve}, func(o *order) *Cell { return &o.Cell }, (*order).reset)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustGet(t testing.TB, p *Pool[order]) *order {
	t.Helper()
	o, ok := p.Get(ClassPriority)
	if !ok {
		t.Fatal("no free seat")
	}
	return o
}

func TestConfigIsValidated(t *testing.T) {
	for _, cfg := range []Config{{}, {Seats: SeatsMax + 1}, {Seats: 2, Reserve: 2}, {Seats: 1, Reserve: -1}} {
		if _, err := New(cfg, func(o *order) *Cell { return &o.Cell }, (*order).reset); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}

func TestReserveIsKeptForPriority(t *testing.T) {
	p := newPool(t, 10, 2)
	var taken []*order
	for range 8 {
		o, ok := p.Get(ClassNew)
		if !ok {
			t.Fatalf("refused with %+v", p.Stats())
		}
		taken = append(taken, o)
	}
	if _, ok := p.Get(ClassNew); ok {
		t.Fatal("new work took the reserve")
	}
	for range 2 {
		taken = append(taken, mustGet(t, p))
	}
	if _, ok := p.Get(ClassPriority); ok {
		t.Fatal("an eleventh seat of ten")
	}
	if st := p.Stats(); st != (Stats{Seats: 10, InUse: 10, Got: 10, Refused: 2}) {
		t.Fatalf("stats = %+v", st)
	}
	for _, o := range taken {
		p.Put(o)
	}
	if st := p.Stats(); st.InUse != 0 {
		t.Fatalf("stats = %+v after all were put", st)
	}
}

func TestAllSeatsOfTheLargestPool(t *testing.T) {
	p := newPool(t, SeatsMax, 0)
	seen := make(map[*order]bool, SeatsMax)
	for range SeatsMax {
		seen[mustGet(t, p)] = true
	}
	if _, ok := p.Get(ClassPriority); ok || len(seen) != SeatsMax {
		t.Fatalf("%d different objects of %d", len(seen), SeatsMax)
	}
}

// TestFreeListIsNotFooledByABA stops one pop between its read and its swap
// while others take two seats and bring back the first, and another one, so
// that top and length are what they were.
func TestFreeListIsNotFooledByABA(t *testing.T) {
	p := newPool(t, 3, 0)
	f, cells := &p.free, p.cells
	c, _ := f.pop(cells, 0)
	stale := f.head.Load()
	tag, length, a := unpack(stale)
	b := uint16(cells[a].next.Load())

	f.pop(cells, 0)
	f.pop(cells, 0) // b: in use from here on
	f.push(cells, c)
	f.push(cells, a)

	if f.head.CompareAndSwap(stale, pack(tag+1, length-1, b)) {
		t.Fatalf("the free list hands out seat %d, which is in use", b)
	}
}

func TestCompleteBeforeTheWait(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	o.Send(100)
	if o.Deadline() != 100 {
		t.Fatalf("deadline = %d", o.Deadline())
	}
	if !o.Complete() {
		t.Fatal("Complete found the handler gone")
	}
	p.Sweep(200) // a reply that is there beats the deadline
	if got := o.Wait(); got != Done {
		t.Fatalf("Wait = %v", got)
	}
	p.Put(o)
}

func TestAbandonedObjectIsReleasedByTheCommitter(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	o.Send(100)
	p.Sweep(100)
	if got := o.Wait(); got != Abandoned {
		t.Fatalf("Wait = %v", got)
	}
	if _, ok := p.Get(ClassPriority); ok {
		t.Fatal("the seat was free while the committer had it")
	}
	if o.Complete() {
		t.Fatal("Complete found a handler that has gone")
	}
	p.Put(o)
	if st := p.Stats(); st != (Stats{Seats: 1, Got: 1, Refused: 1, Abandoned: 1}) {
		t.Fatalf("stats = %+v", st)
	}
}

func TestSweepWakesOnlyAtTheDeadline(t *testing.T) {
	p := newPool(t, 2, 0)
	early, late := mustGet(t, p), mustGet(t, p)
	early.Send(100)
	late.Send(math.MaxInt64)
	waits := make(chan Outcome)
	go func() { waits <- early.Wait() }()
	p.Sweep(99)
	if n := len(early.wake); n != 0 {
		t.Fatal("woken before the deadline")
	}
	p.Sweep(100)
	if got := <-waits; got != Abandoned {
		t.Fatalf("Wait = %v", got)
	}
	go func() { waits <- late.Wait() }()
	p.Sweep(math.MaxInt64 - 1)
	late.Complete()
	if got := <-waits; got != Done {
		t.Fatalf("Wait without a deadline = %v", got)
	}
}

type bell struct{ rung int }

func (b *bell) Wake() { b.rung++ }

// TestWakeBy: whoever asks is told of both ends of a wait, and nothing once the object is
// somebody else's.
func TestWakeBy(t *testing.T) {
	p, b := newPool(t, 1, 0), &bell{}
	var waker Waker = b
	for _, test := range []struct {
		end  func(*order)
		want Outcome
	}{
		{func(o *order) { o.Complete() }, Done},
		{func(*order) { p.Sweep(100) }, Abandoned},
	} {
		o := mustGet(t, p)
		o.WakeBy(&waker)
		o.Send(100)
		if _, ended := o.TryWait(); ended || b.rung != 0 {
			t.Fatalf("before its end: %v, told %d times", ended, b.rung)
		}
		test.end(o)
		if outcome, ended := o.TryWait(); !ended || outcome != test.want || b.rung != 1 {
			t.Fatalf("%v, want %v; ended %v, told %d times", outcome, test.want, ended, b.rung)
		}
		if test.want == Abandoned {
			o.Complete()
		}
		p.Put(o)
		b.rung = 0
		o = mustGet(t, p)
		o.Send(math.MaxInt64)
		o.Complete()
		if o.Wait(); b.rung != 0 {
			t.Error("the last owner was told")
		}
		p.Put(o)
	}
}

func TestStaleTokenDoesNotEndTheNextWait(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	o.Send(100)
	o.Complete()
	o.Wait() // finds done at once and leaves the token behind
	if len(o.wake) != 1 {
		t.Fatal("no token is left over: this test tests nothing")
	}
	p.Put(o)

	o = mustGet(t, p)
	o.Send(100)
	waits := make(chan Outcome)
	go func() { waits <- o.Wait() }()
	for len(o.wake) == 1 { // until the stale token is received
	}
	select {
	case got := <-waits:
		t.Fatalf("the stale token ended the wait: %v", got)
	default:
	}
	o.Complete()
	if got := <-waits; got != Done {
		t.Fatalf("Wait = %v", got)
	}
}

func TestGenerationTellsOwnersApart(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	mine := o.Generation()
	o.Send(1)
	o.Complete()
	o.Wait()
	if o.Generation() != mine {
		t.Fatal("the generation changed under its owner")
	}
	p.Put(o)
	mustGet(t, p)
	if o.Generation() == mine {
		t.Fatal("a stale reference looks current")
	}
}

func TestObjectsComeBackClean(t *testing.T) {
	p := newPool(t, 1, 0)
	for range 3 {
		o := mustGet(t, p)
		if o.id != 0 || o.user != "" || len(o.body) != 0 || o.sum != [4]byte{} || o.extra.quantity != 0 {
			t.Fatalf("dirty: %+v", o)
		}
		o.id, o.user, o.body, o.sum[3], o.extra.quantity = 7, "u-7", append(o.body, "secret"...), 1, 2
		p.Put(o)
	}
}

// TestMisusePanics plants each call that does not fit the state.
func TestMisusePanics(t *testing.T) {
	for _, tc := range []struct {
		want string
		do   func(p *Pool[order], o *order)
	}{
		{"double Put of seat 0, which is free", func(p *Pool[order], o *order) { p.Put(o); p.Put(o) }},
		{"Put of seat 0, which is sent", func(p *Pool[order], o *order) { o.Send(1); p.Put(o) }},
		{"Put of seat 0, which is done", func(p *Pool[order], o *order) { o.Send(1); o.Complete(); p.Put(o) }},
		{"Put of seat 0, which is abandoned", func(p *Pool[order], o *order) { o.Send(0); o.Wait(); p.Put(o) }},
		{"Send of seat 0, which is free", func(p *Pool[order], o *order) { p.Put(o); o.Send(1) }},
		{"Send of seat 0, which is sent", func(_ *Pool[order], o *order) { o.Send(1); o.Send(1) }},
		{"Wait of seat 0, which is held", func(_ *Pool[order], o *order) { o.Wait() }},
		{"Wait of seat 0, which is abandoned", func(_ *Pool[order], o *order) { o.Send(0); o.Wait(); o.Wait() }},
		{"Complete of seat 0, which is free", func(p *Pool[order], o *order) { p.Put(o); o.Complete() }},
		{"Complete of seat 0, which is held", func(_ *Pool[order], o *order) { o.Complete() }},
		{"Complete of seat 0, which is done", func(_ *Pool[order], o *order) { o.Send(1); o.Complete(); o.Complete() }},
	} {
		t.Run(tc.want, func(t *testing.T) {
			p := newPool(t, 1, 0)
			o := mustGet(t, p)
			mustPanic(t, tc.want, func() { tc.do(p, o) })
		})
	}
}

func mustPanic(t *testing.T, want string, do func()) string {
	t.Helper()
	var text string
	func() {
		defer func() { text, _ = recover().(string) }()
		do()
	}()
	if !strings.Contains(text, want) {
		t.Fatalf("panic = %q, want %q", text, want)
	}
	return text
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	p := newPool(t, 8, 2)
	if checked {
		return // the stacks of owncheck are made of allocations
	}
	if n := testing.AllocsPerRun(1000, func() {
		o, _ := p.Get(ClassNew)
		o.Send(1)
		o.Complete()
		o.Wait()
		p.Put(o)
	}); n != 0 {
		t.Fatalf("%v allocations a request", n)
	}
}
