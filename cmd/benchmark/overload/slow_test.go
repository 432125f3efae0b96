//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestDrip: a slow shopper sends all that it has, a byte at a time.
func TestDrip(t *testing.T) {
	shopper, server := net.Pipe()
	begin := time.Now()
	go func() {
		drip(t.Context(), shopper, "abc")
		_ = shopper.Close()
	}()
	text, err := io.ReadAll(server)
	if took := time.Since(begin); err != nil || string(text) != "abc" || took < 3*dripEvery {
		t.Errorf("%q after %v, %v", text, took, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	drip(ended, shopper, "abc") // returns, though nobody reads
}

// TestSlowness: what the server sees of each kind of slow shopper is the beginning of an
// order, and only the last kind sends all of it at once.
func TestSlowness(t *testing.T) {
	whole := slowHead(len(slowBody)) + slowBody
	for i, how := range slownesses {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		least := 1 // what is waited for, and then for more
		if i == len(slownesses)-1 {
			least = len(whole)
		}
		came := make(chan string, 16)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					b := make([]byte, 8<<10)
					_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
					n, _ := io.ReadAtLeast(conn, b, least)
					_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
					more, _ := io.ReadFull(conn, b[n:]) // never that much
					came <- string(b[:n+more])
				}()
			}
		}()
		c, err := gather(t.Context(), listener.Addr().String(), 2, how)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			text := <-came
			if text == "" || !strings.HasPrefix(text, "POST /api/v1/orders"[:min(len(text), 19)]) || (text == whole) != (i == len(slownesses)-1) {
				t.Errorf("%s: sent %q", how.name, text)
			}
		}
		c.leave()
		_ = listener.Close()
	}
	if _, err := gather(t.Context(), "127.0.0.1:1", 2, slownesses[0]); err == nil {
		t.Error("gathered before no server")
	}
}
