package main

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"sync"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
)

// mutexShop keeps everything in maps behind one mutex, and each order in the
// journal that Doorbuster has. The mutex is held while an order is decided and
// queued, and never while anybody waits for the disk.
type mutexShop struct {
	store     *embedded.Store
	committer *journal.Committer
	clock     *clockd.Clock
	writes    sync.Pool // of *write

	mu    sync.Mutex // guards deals and all that is in them
	deals map[string]*dealState
}

type dealState struct {
	name                string
	epoch, seq          uint64
	stock, limit, price int64
	bought              map[string]int64     // by user
	placed              map[placedKey]placed // by user and key
}

type placedKey struct{ user, key string }

// placed is an order that was accepted. It may still be on its way to the disk.
type placed struct {
	receipt
	barrier bool // of a repeated key: nothing to write
}

// write is one order's way through the journal. It is its own completer.
type write struct {
	journal.Write
	event []byte
	done  chan struct{}
}

// Committed implements journal.Completer.
func (w *write) Committed(*journal.Write) { w.done <- struct{}{} }

func openMutex(ctx context.Context, dir string, of offer) (_ shop, err error) {
	s := &mutexShop{deals: make(map[string]*dealState, of.deals)}
	s.writes.New = func() any { return &write{done: make(chan struct{}, 1)} }
	if s.clock, err = clockd.New(clockd.Config{}); err != nil {
		return nil, err
	}
	s.clock.Start()
	fatal := func(err error) { panic(err) } // this process has nothing else to do
	s.store, err = embedded.Open(embedded.Config{
		Dir: dir, Now: clockd.Mono, Wall: func() int64 { return s.clock.Now().Wall }, Fatal: fatal,
	})
	if err != nil {
		return nil, err
	}
	if s.committer, err = journal.NewCommitter(s.store, journal.Config{Fatal: fatal}); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.committer.Start()
	for i := range of.deals {
		name := "d-" + strconv.Itoa(i)
		head, err := s.store.Open(ctx, name)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.deals[name] = &dealState{
			name: name, epoch: head.Epoch, seq: head.Seq, stock: of.stock, limit: of.limit, price: of.price,
			bought: make(map[string]int64), placed: make(map[placedKey]placed),
		}
	}
	return s, nil
}

func (s *mutexShop) place(_ context.Context, o *order) (receipt, error) {
	w := s.writes.Get().(*write)
	defer s.writes.Put(w)
	s.mu.Lock()
	d := s.deals[o.Deal]
	if d == nil {
		s.mu.Unlock()
		return receipt{}, errNoDeal
	}
	p, err := d.decide(o, s.clock.Now().Wall)
	if err != nil {
		s.mu.Unlock()
		return receipt{}, err
	}
	w.prepare(d, o, p)
	s.committer.Submit(&w.Write) // in the order of the deal's events, so within the lock
	s.mu.Unlock()
	<-w.done
	return p.receipt, w.Err
}

// decide changes the deal's state, unless it refuses or the key was seen before.
func (d *dealState) decide(o *order, now int64) (placed, error) {
	key := placedKey{o.User, o.Key}
	if p, again := d.placed[key]; again {
		p.barrier = true
		if p.Quantity != o.Quantity {
			return placed{}, errMismatch
		}
		return p, nil
	}
	if d.stock < o.Quantity {
		return placed{}, errSoldOut
	}
	if d.limit > 0 && d.bought[o.User]+o.Quantity > d.limit {
		return placed{}, errLimit
	}
	d.stock -= o.Quantity
	d.bought[o.User] += o.Quantity
	d.seq++
	p := placed{receipt: receipt{Seq: int64(d.seq), Quantity: o.Quantity, Available: d.stock, Total: o.Quantity * d.price, At: now}}
	d.placed[key] = p
	return p, nil
}

// prepare makes the write: the whole order, from which a restart could replay the
// deal. A repeated key waits behind its first order with an empty one.
func (w *write) prepare(d *dealState, o *order, p placed) {
	w.Write = journal.Write{Stream: d.name, Epoch: d.epoch, Seq: uint64(p.Seq), Count: 1, Data: w.Data[:0], Done: w}
	if p.barrier {
		w.Count = 0
		return
	}
	w.event = binary.AppendVarint(w.event[:0], p.At)
	for _, text := range []string{o.User, o.Key} {
		w.event = append(binary.AppendUvarint(w.event, uint64(len(text))), text...)
	}
	w.event = binary.AppendVarint(w.event, p.Quantity)
	w.event = binary.AppendVarint(w.event, p.Total)
	w.Data = journal.AppendEvent(w.Data, w.event)
}

func (s *mutexShop) close() error {
	s.committer.Close()
	s.clock.Close()
	return s.store.Close()
}
