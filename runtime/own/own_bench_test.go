package own

import (
	"math"
	"testing"
)

func BenchmarkGetPut(b *testing.B) {
	p := newPool(b, 1024, 204)
	b.ReportAllocs()
	for b.Loop() {
		o, _ := p.Get(ClassNew)
		p.Put(o)
	}
}

func BenchmarkGetPutParallel(b *testing.B) {
	p := newPool(b, 1024, 204)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o, _ := p.Get(ClassNew)
			p.Put(o)
		}
	})
}

// BenchmarkPingPong is one request at a time through another goroutine.
func BenchmarkPingPong(b *testing.B) {
	p := newPool(b, 1024, 204)
	committer := make(chan *order, 1024)
	go func() {
		for o := range committer {
			o.Complete()
		}
	}()
	defer close(committer)
	b.ReportAllocs()
	for b.Loop() {
		o, _ := p.Get(ClassNew)
		o.Send(math.MaxInt64)
		committer <- o
		o.Wait()
		p.Put(o)
	}
}

// BenchmarkSweep is one sweep over 1,024 seats that are all waiting.
func BenchmarkSweep(b *testing.B) {
	p := newPool(b, 1024, 0)
	for range 1024 {
		mustGet(b, p).Send(math.MaxInt64)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Sweep(1)
	}
}
