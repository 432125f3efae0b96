package porttest

import (
	"net"
	"runtime"
	"testing"
)

// TestAddress: all addresses are different, can be listened on, and stay claimed.
func TestAddress(t *testing.T) {
	seen := make(map[string]bool)
	for range 200 {
		address, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Errorf("%s was given out twice", address)
		}
		seen[address] = true
	}
	// The first round collects the connections that nothing holds; that the second has
	// finished says that all finalizers of the first have.
	collect()
	collect()
	for address := range seen {
		if claim, err := net.ListenPacket("udp4", address); err == nil {
			t.Errorf("the claim on %s has ended", address)
			_ = claim.Close()
		}
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = listener.Close()
	}
}

// collect has a finalizer of a garbage collection run.
func collect() {
	done := make(chan struct{})
	runtime.SetFinalizer(&struct{ one [64]byte }{}, func(any) { close(done) })
	runtime.GC()
	<-done
}
