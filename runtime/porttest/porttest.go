// Package porttest finds addresses for servers that a test starts later, stops and starts
// again. One that was free a moment ago may be somebody else's by then: any listener on
// port 0 that another test opens gets a port from the kernel's range. So these are from
// below that range, and none is given out twice while the process runs that has it, in
// that process or another.
package porttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Linux gives out ports from 32768 up.
const (
	first = 10_000
	last  = 32_767
	tries = 1000
)

var (
	mu     sync.Mutex       // guards claims
	claims []net.PacketConn // kept, as the end of a claim is a port that is given out again
)

// Address returns an address on 127.0.0.1 on which nobody listens. It is the caller's
// until the process ends.
func Address() (string, error) {
	for range tries {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1))
		// Of all processes one has the port of the same number in UDP, which no server uses.
		claim, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		listener, err := net.Listen("tcp4", address)
		if err != nil { // somebody else's
			_ = claim.Close()
			continue
		}
		mu.Lock()
		claims = append(claims, claim)
		mu.Unlock()
		return address, listener.Close()
	}
	return "", errors.New("porttest: no port is free")
}
