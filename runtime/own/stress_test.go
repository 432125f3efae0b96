package own

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStressPipelinedClients runs the whole life of requests under a sweep
// that lets many deadlines pass in mid-work. Each connection is a pipelined
// client over one read buffer, as fasthttp has it: the next request overwrites
// the buffer at once, also when the request before was abandoned and its
// object is still with the actor. Every stage checks that the object is still
// the one that the handler filled; the race detector checks that nobody else
// touches it.
func TestStressPipelinedClients(t *testing.T) {
	const (
		connections = 32
		requests    = 2000
		seats       = 24 // fewer than connections: refusals happen too
		patience    = 40 // in sweeps
	)
	p := newPool(t, seats, seats/5)
	actor, committer := make(chan *order, seats), make(chan *order, seats)
	var now atomic.Int64
	var finished, gone, refused atomic.Uint64

	stop := make(chan struct{})
	var stages, handlers sync.WaitGroup
	stages.Go(func() { // the clock
		for {
			select {
			case <-stop:
				return
			default:
				p.Sweep(now.Add(1))
				time.Sleep(time.Microsecond)
			}
		}
	})
	stages.Go(func() {
		defer close(committer)
		for o := range actor {
			checkOrder(t, o)
			stall()
			o.reply = append(o.reply, o.sum[:]...)
			committer <- o
		}
	})
	stages.Go(func() {
		for o := range committer {
			checkOrder(t, o)
			stall()
			checkOrder(t, o)
			if !o.Complete() {
				checkOrder(t, o)
				gone.Add(1)
				p.Put(o)
			}
		}
	})

	for conn := range connections {
		handlers.Go(func() {
			readBuffer := make([]byte, 64)
			for n := range requests {
				id := uint64(conn*requests + n)
				binary.LittleEndian.PutUint64(readBuffer[n%32:], id)
				class := Class(rand.IntN(2))
				o, ok := p.Get(class)
				if !ok {
					refused.Add(1)
					continue
				}
				o.id, o.body = id, append(o.body, readBuffer...)
				binary.LittleEndian.PutUint32(o.sum[:], crc32.ChecksumIEEE(o.body))
				sum := o.sum
				o.Send(now.Load() + rand.Int64N(patience))
				actor <- o
				if o.Wait() == Abandoned {
					continue
				}
				if o.id != id || string(o.reply) != string(sum[:]) {
					t.Errorf("request %d got the reply %x of %d, want %x", id, o.reply, o.id, sum)
				}
				finished.Add(1)
				p.Put(o)
			}
		})
	}
	handlers.Wait()
	close(actor)
	close(stop)
	stages.Wait()

	st := p.Stats()
	t.Logf("finished %d, abandoned %d, refused %d", finished.Load(), gone.Load(), refused.Load())
	if want := (Stats{Seats: seats, Got: finished.Load() + gone.Load(), Refused: refused.Load(), Abandoned: gone.Load()}); st != want {
		t.Errorf("stats = %+v, want %+v", st, want)
	}
	if finished.Load() == 0 || gone.Load() == 0 || refused.Load() == 0 {
		t.Error("one of the outcomes never happened: the test tests too little")
	}
}

func checkOrder(t *testing.T, o *order) {
	if got := crc32.ChecksumIEEE(o.body); got != binary.LittleEndian.Uint32(o.sum[:]) {
		t.Errorf("the body of request %d changed under its owner", o.id)
	}
}

func stall() {
	for range rand.IntN(300) {
		_ = rand.Uint64()
	}
}

// TestCompleteRacesAbandonment lets both ends of one wait go off at once, many
// times, and checks that exactly one of them became the owner.
func TestCompleteRacesAbandonment(t *testing.T) {
	p := newPool(t, 1, 0)
	var done, abandoned int
	completed := make(chan bool)
	work := make(chan *order)
	go func() {
		for o := range work {
			completed <- o.Complete()
		}
	}()
	defer close(work)
	for i := range int64(5_000) {
		o := mustGet(t, p)
		o.Send(i)
		work <- o
		p.Sweep(i)
		outcome := o.Wait()
		if ok := <-completed; ok != (outcome == Done) {
			t.Fatalf("round %d: Complete = %v and Wait = %v", i, ok, outcome)
		}
		if outcome == Done {
			done++
		} else {
			abandoned++
		}
		p.Put(o)
	}
	t.Logf("done %d, abandoned %d", done, abandoned)
}
