package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// BenchmarkGroupCommit is 400 writers that each wait for their order to be durable
// before they submit the next, with events of about 110 bytes of which half is
// random, on a real file. bytes/order is all that pebble writes: log, flushes and
// compactions, up to and with the last flush.
//
//	go test -run - -bench GroupCommit -benchtime 1000000x ./runtime/journal/embedded
func BenchmarkGroupCommit(b *testing.B) {
	for _, streams := range []int{1, 1000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) { benchmarkGroupCommit(b, streams) })
	}
}

func benchmarkGroupCommit(b *testing.B, streams int) {
	const writers = 400
	cfg := testConfig(b, nil, b.TempDir())
	cfg.MemTable, cfg.Recent, cfg.LowSpace, cfg.Reserve = 0, 0, 0, 0
	s := mustOpen(b, cfg)
	var groups, syncNanos int64
	c, err := journal.NewCommitter(s, journal.Config{
		Now:     cfg.Now,
		Observe: func(g journal.Group) { groups++; syncNanos += g.Nanos },
		Fatal:   func(err error) { b.Fatalf("fatal: %v", err) },
	})
	if err != nil {
		b.Fatal(err)
	}
	owners := make([]*benchOwner, streams)
	for i := range owners {
		name := fmt.Sprintf("dl_%08x%08x", rand.Uint32(), i)
		head, err := s.Open(context.Background(), name)
		if err != nil {
			b.Fatal(err)
		}
		owners[i] = &benchOwner{committer: c, stream: name, epoch: head.Epoch, ready: make(chan *benchOrder, writers)}
		go owners[i].run()
	}
	c.Start()
	b.ReportAllocs()
	b.ResetTimer()
	before := s.Stats()
	begin := time.Now()
	orders := make(chan *benchOrder, writers)
	for range writers {
		o := &benchOrder{done: orders}
		for i := range o.random {
			o.random[i] = byte(rand.Uint32())
		}
		orders <- o
	}
	for i := range b.N {
		o := <-orders
		binary.LittleEndian.PutUint64(o.random[i%40:], rand.Uint64())
		owners[rand.IntN(streams)].ready <- o
	}
	for range writers {
		<-orders
	}
	b.StopTimer()
	elapsed := time.Since(begin)
	for _, o := range owners {
		close(o.ready)
	}
	c.Close()
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	after := s.Stats()
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "orders/s")
	b.ReportMetric(float64(after.BytesWritten-before.BytesWritten)/float64(b.N), "bytes/order")
	b.ReportMetric(float64(after.Bytes-before.Bytes)/float64(b.N), "event-bytes/order")
	b.ReportMetric(float64(b.N)/float64(groups), "orders/group")
	b.ReportMetric(float64(syncNanos)/float64(groups)/1e3, "µs/group")
	if os.Getenv("PEBBLE_METRICS") != "" {
		b.Log(s.db.Metrics().String())
	}
	replay := time.Now()
	for _, o := range owners {
		n := uint64(0)
		err := s.Read(context.Background(), o.stream, 0, func(journal.Event) error { n++; return nil })
		if err != nil || n != o.seq {
			b.Fatalf("replay: %d of %d events, %v", n, o.seq, err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(replay).Seconds(), "replayed/s")
	mustClose(b, s)
}

// benchOwner is a deal: it numbers the events of its stream.
type benchOwner struct {
	committer *journal.Committer
	stream    string
	epoch     uint64
	seq       uint64
	ready     chan *benchOrder
}

func (o *benchOwner) run() {
	event := make([]byte, 110)
	copy(event, "\x01us_0000000000000000ord_0000000000000000idem-0000000000000000")
	for order := range o.ready {
		o.seq++
		copy(event[58:], order.random[:])
		w := &order.write
		*w = journal.Write{Stream: o.stream, Epoch: o.epoch, Seq: o.seq, Count: 1, Done: order}
		w.Data = journal.AppendEvent(order.buf[:0], event)
		o.committer.Submit(w)
	}
}

type benchOrder struct {
	write  journal.Write
	buf    [120]byte
	random [48]byte
	done   chan *benchOrder
}

func (o *benchOrder) Committed(w *journal.Write) {
	if w.Err != nil {
		panic(w.Err)
	}
	o.done <- o
}

// BenchmarkStreams lists 100,000 streams with one event each.
//
//	go test -run - -bench Streams -benchtime 1x ./runtime/journal/embedded
func BenchmarkStreams(b *testing.B) {
	const streams = 100_000
	cfg := testConfig(b, nil, b.TempDir())
	cfg.MemTable = 0
	s := mustOpen(b, cfg)
	for i := range streams {
		if _, err := s.Open(context.Background(), fmt.Sprintf("dl_%016x", i)); err != nil {
			b.Fatal(err)
		}
	}
	group := make([]*journal.Write, 0, streams)
	for i := range streams {
		w := &journal.Write{Stream: fmt.Sprintf("dl_%016x", i), Epoch: 1, Seq: 1, Count: 1}
		w.Data = journal.AppendEvent(nil, make([]byte, 110))
		group = append(group, w)
	}
	if err := s.Commit(group); err != nil {
		b.Fatal(err)
	}
	mustClose(b, s)
	s = mustOpen(b, cfg)
	for b.Loop() {
		n := 0
		err := s.Streams(context.Background(), "", func(string, journal.Head) error { n++; return nil })
		if err != nil || n != streams {
			b.Fatalf("%d streams, %v", n, err)
		}
	}
	mustClose(b, s)
}
