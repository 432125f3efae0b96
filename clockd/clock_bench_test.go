package clockd

import (
	"testing"
	"time"
)

func BenchmarkNow(b *testing.B) {
	c := NewManual(noon).Clock()
	b.ReportAllocs()
	for b.Loop() {
		sink = c.Now().Wall
	}
}

func BenchmarkMono(b *testing.B) {
	for b.Loop() {
		sink = Mono()
	}
}

func BenchmarkTimeNow(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sink = time.Now().UnixMilli()
	}
}
