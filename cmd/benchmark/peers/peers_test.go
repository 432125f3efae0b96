package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab/labtest"
)

// TestMain lets the test binary stand in for the peers, which are the binary run again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shop" {
		main()
		return
	}
	os.Exit(m.Run())
}

// open starts a shop in a folder of its own.
func open(t *testing.T, kind string, of offer) shop {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer") //nolint:usetesting // a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := openShop(context.WithoutCancel(t.Context()), kind, dir, of) // it is closed in good order
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestShops checks that what we compare to does what it is compared for.
func TestShops(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, k.name, offer{deals: 2, stock: 100, limit: 5, price: 10})
			checkRules(t, s)
			checkRush(t, s)
		})
	}
}

// checkRules goes through the answers that an order can get, on deal d-0.
func checkRules(t *testing.T, s shop) {
	t.Helper()
	for i, step := range []struct {
		order     order
		err       error
		seq, left int64
	}{
		{order{Deal: "d-0", User: "a", Key: "1", Quantity: 3}, nil, 1, 97},
		{order{Deal: "d-0", User: "a", Key: "1", Quantity: 3}, nil, 1, 97}, // again
		{order{Deal: "d-0", User: "a", Key: "1", Quantity: 2}, errMismatch, 0, 0},
		{order{Deal: "d-0", User: "a", Key: "2", Quantity: 3}, errLimit, 0, 0},
		{order{Deal: "d-0", User: "b", Key: "1", Quantity: 5}, nil, 2, 92},
		{order{Deal: "d-0", User: "b", Key: "1", Quantity: 5}, nil, 2, 92}, // though nothing is left to b
		{order{Deal: "d-0", User: "c", Key: "1", Quantity: 101}, errSoldOut, 0, 0},
		{order{Deal: "d-9", User: "a", Key: "1", Quantity: 1}, errNoDeal, 0, 0},
	} {
		r, err := s.place(t.Context(), &step.order)
		want := receipt{Seq: step.seq, Quantity: step.order.Quantity, Available: step.left, Total: 10 * step.order.Quantity, At: r.At}
		if !errors.Is(err, step.err) || step.err == nil && (r != want || r.At == 0) {
			t.Errorf("step %d: %+v, %v", i, r, err)
		}
	}
}

// checkRush lets users want more of deal d-1 than there is, each with a key that is
// sent twice at once.
func checkRush(t *testing.T, s shop) {
	t.Helper()
	const users, each, stock = 40, 4, 100
	var wait sync.WaitGroup
	var mu sync.Mutex // guards sold
	sold := make(map[int64]receipt)
	for i := range 2 * users {
		wait.Go(func() {
			r, err := s.place(t.Context(), &order{Deal: "d-1", User: fmt.Sprint(i / 2), Key: "k", Quantity: each})
			if err != nil && !errors.Is(err, errSoldOut) {
				t.Errorf("user %d: %v", i/2, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				sold[r.Seq] = r
			}
		})
	}
	wait.Wait()
	if len(sold) != stock/each {
		t.Fatalf("%d orders of %d were accepted, there is stock for %d", len(sold), each, stock/each)
	}
	for seq := range int64(stock / each) {
		if r := sold[seq+1]; r.Available != stock-each*(seq+1) {
			t.Errorf("order %d left %+v", seq+1, r)
		}
	}
}

// TestSession runs the comparison with one peer in one situation, as short as it
// can be.
func TestSession(t *testing.T) {
	allKinds, allSituations := kinds, situations
	defer func() { kinds, situations = allKinds, allSituations }()
	kinds, situations = kinds[:1], situations[:1]
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "performance.md")
	labtest.Session(t, func(seconds string) error {
		out.Reset()
		cmd := newCommand()
		cmd.SetArgs([]string{"--rounds", "1", "--seconds", seconds, "--warmup", seconds, "--connections", "8", "--page", path})
		cmd.SetOut(&out)
		return cmd.ExecuteContext(t.Context())
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| one hot deal | Redis + Lua, appendfsync always |", "|  | Doorbuster |", "performance/peers.svg"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestTable(t *testing.T) {
	all := contestants()
	for i, c := range all {
		for range 3 {
			c.loads = append(c.loads, lab.Load{Requests: 100 * (i + 1), Elapsed: time.Second, P99: time.Millisecond})
		}
	}
	// A round in which the machine was slow for all changes no ratio.
	for _, c := range all {
		c.loads[2].Elapsed *= 3
	}
	for _, want := range []string{
		"| one hot deal | Redis + Lua, appendfsync always | 100 (33 - 100) | 0.20 | 0.0 | 1.0 | one fsync",
		"|  | Doorbuster | 1000 (333 - 1000) | 1.00 |",
	} {
		if text := table(all); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	if _, err := openShop(t.Context(), "no such", t.TempDir(), offer{}); err == nil {
		t.Error("opened a shop of no known kind")
	}
	for _, args := range [][]string{{"--rounds", "0"}, {"--seconds", "0"}, {"--warmup", "0"}, {"x"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors = true
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
