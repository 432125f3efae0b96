package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/gateway/client"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

var long = flag.Int("long", 0, "attack the shop this many times with hostile modules and as many with harmless ones, as many with hostile ones while it sells all that it can, and judge the P99 of all orders together")

// othersMax is the part of a processor that other programs may take during an attack
// that is judged, and attacksMax how many are begun for each that is.
const (
	othersMax  = 0.05
	attacksMax = 4
)

// The shop: a server process, and orders for the deals of a merchant who means well. On
// a quiet day they come on a fixed schedule and wait for nobody, so that what holds up one order
// shows in the latency of those behind it. When everybody buys at once, each connection
// sends the next as soon as it has its answer.
const (
	quietDay    = 500.0 // orders/s
	everybody   = 0.0   // as many as there are answers
	shopDeals   = 8
	shopConns   = 32
	shopBatches = 6                      // that the modules are divided into
	shopIdle    = 500 * time.Millisecond // before each batch
	shopWarm    = time.Second

	// Of each hostile module that is taken.
	evaluations = 3
	victims     = 10 // users who order at its price: too few to have it switched off
	perVictim   = 2
)

// TestShopNeighbours: while all of these modules are uploaded, evaluated and put on
// deals of a server, and orders for those deals run them, each comes to what it must,
// and every order for another merchant's deals, which three rules price, is taken at
// its price. How quickly is judged with -long alone: a server, its journal, its compilers
// and its shoppers need a machine that does nothing else. It is held against idle moments;
// what the same traffic costs by merchants who mean no harm is told beside it.
func TestShopNeighbours(t *testing.T) {
	server, err := lab.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	syscall.Sync() // or the journal's syncs wait for what building has written
	names, hostile := Modules()
	if *long == 0 {
		attackShop(t, server, quietDay, names, hostile)
		return
	}
	// The shoppers share this process with the attacker, whose garbage is not the server's.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	harmless := make(map[string]Module)
	for n, name := range names {
		harmless[name] = Module{Wasm: ruleOf(fmt.Sprintf("i32.const %d drop ", n)+gastest.Result, nil)}
	}
	var idle, control, beside, full, besideFull []time.Duration
	for range *long { // in turn, since the machine is not always as quick
		i, c := attackAlone(t, server, names, harmless)
		j, b := attackAlone(t, server, names, hostile)
		idle, control, beside = slices.Concat(idle, i, j), append(control, c...), append(beside, b...)
		i, b = attackShop(t, server, everybody, names, hostile)
		full, besideFull = append(full, i...), append(besideFull, b...)
	}
	t.Logf("of %d orders beside harmless modules: P99 %s", len(control), ninetyNinth(control))
	judge(t, "on a quiet day", idle, beside)
	judge(t, "when everybody buys", full, besideFull)
}

func judge(t *testing.T, when string, idle, beside []time.Duration) {
	t.Helper()
	ratio := float64(ninetyNinth(beside)) / float64(ninetyNinth(idle))
	t.Logf("%s: P99 of %d orders beside hostile modules %s, %.2f times that of %d in idle moments, %s",
		when, len(beside), ninetyNinth(beside), ratio, len(idle), ninetyNinth(idle))
	if ratio > ratioMax {
		t.Errorf("%s the P99 of orders is %.2f times what it is without hostile modules", when, ratio)
	}
}

// attackAlone attacks the shop on a quiet day, until other programs leave the machine to that.
func attackAlone(t *testing.T, server string, names []string, all map[string]Module) (idle, beside []time.Duration) {
	t.Helper()
	for range attacksMax {
		before := others(t)
		begin := time.Now()
		idle, beside = attackShop(t, server, quietDay, names, all)
		part := float64(others(t)-before) / float64(time.Since(begin))
		t.Logf("P99 in idle moments %s, then %s; others took %.2f of a processor", ninetyNinth(idle), ninetyNinth(beside), part)
		if part <= othersMax {
			return idle, beside
		}
	}
	t.Fatalf("other programs took more than %.2f of a processor in each of %d attacks", othersMax, attacksMax)
	return nil, nil
}

// others is the processor time that this test and what it started have not used, since
// the machine began. A server's own count when they have ended.
func others(t *testing.T) time.Duration {
	t.Helper()
	const tick = time.Second / 100 // proc_stat(5): USER_HZ
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var left time.Duration
	for n, field := range strings.Fields(line) {
		ticks, err := strconv.Atoi(field)
		switch n {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal
			if err != nil {
				t.Fatal(err)
			}
			left += time.Duration(ticks) * tick
		}
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if err := syscall.Getrusage(who, &used); err != nil {
			t.Fatal(err)
		}
		left -= time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return left
}

// attackShop starts a server and returns the latencies of the neighbour's orders, in
// idle moments and while these modules are uploaded and run.
func attackShop(t *testing.T, server string, rate float64, names []string, all map[string]Module) (idle, beside []time.Duration) {
	t.Helper()
	p, err := lab.Serve(t.Context(), server, filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}()
	shop := openShop(t, p.Listen)
	evil := evildoer{t, newClient(t, p.Listen, 1)}
	shop.sell(t, t.Context(), shopWarm, rate)
	for batch := range slices.Chunk(names, (len(names)+shopBatches-1)/shopBatches) {
		idle = append(idle, shop.sell(t, t.Context(), shopIdle, rate)...)
		ctx, over := context.WithCancelCause(t.Context())
		go func() {
			defer over(errOver)
			for _, name := range batch {
				evil.attack("evil-"+strconv.Itoa(slices.Index(names, name)), name, all[name])
			}
		}()
		beside = append(beside, shop.sell(t, ctx, time.Hour, rate)...)
	}
	return idle, beside
}

// TestUploadLeavesPoller: a request that comes while the server works on an upload is
// answered at once. Were the upload worked on by the thread that waits for the network,
// half of them would be read when Go's monitor looks, 10 to 20 ms later. One round in
// which few were is enough, whatever else the machine does during the others.
func TestUploadLeavesPoller(t *testing.T) {
	const (
		most    = 8 // rounds
		uploads = 16
		slowMax = 2                    // of them
		before  = 2 * time.Millisecond // the upload, whose module takes more than 20 ms
		quick   = 5 * time.Millisecond
	)
	server, err := lab.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.Serve(t.Context(), server, filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}()
	_, all := Modules()
	evil, other := evildoer{t, newClient(t, p.Listen, 1)}, newClient(t, p.Listen, 1)
	for round := range most {
		slow := 0
		for n := range uploads {
			var uploaded sync.WaitGroup
			uploaded.Go(func() {
				path := fmt.Sprintf("/api/v1/rules/r/versions?merchant_id=evil-%d-%d", round, n)
				if status := evil.do(client.Call{Path: path, ContentType: "application/wasm", Body: all["many functions"].Wasm}); status != 201 {
					t.Error("the upload is answered with", status)
				}
			})
			time.Sleep(before)
			begin := time.Now()
			if answer, err := other.Do(t.Context(), client.Call{Method: "GET", Path: "/livez"}); err != nil || answer.Status != 200 {
				t.Fatal(answer.Status, err)
			}
			if time.Since(begin) > quick {
				slow++
			}
			uploaded.Wait()
		}
		if slow <= slowMax {
			return
		}
		t.Logf("%d of %d requests beside an upload took more than %s", slow, uploads, quick)
	}
	t.Error("requests wait while the server works on an upload")
}

// errOver ends a moment.
var errOver = errors.New("the attack is over")

func newClient(t *testing.T, addr string, connections int) *client.Client {
	t.Helper()
	// The compiler of an upload rests for half of the time while orders come.
	c, err := client.New(client.Config{Addr: addr, Connections: connections, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// neighbour is the merchant who means well.
type neighbour struct {
	client *client.Client
	orders lab.Orders
	sold   int
}

func openShop(t *testing.T, addr string) *neighbour {
	t.Helper()
	n := &neighbour{newClient(t, addr, shopConns), lab.Orders{Deals: shopDeals, Prefix: "d-", Run: "r"}, 0}
	for name, wasm := range map[string][]byte{
		"flat":  ruleOf(discount("i64.const 990"), nil),
		"share": ruleOf(discount("i32.const 8192 i64.load 3 24 i64.const 20 raw 7f"), nil), // a twentieth
		"busy": ruleOf("i32.const 1000 local.set 1 loop void local.get 1 i32.const 1 i32.sub local.tee 1 br_if 0 end "+gastest.Result,
			func(m *gastest.Module) { m.Funcs[gastest.FuncEvaluate].Locals = []byte{gastest.I32} }),
	} {
		upload := client.Call{Method: "POST", Path: "/api/v1/rules/" + name + "/versions?merchant_id=bench", ContentType: "application/wasm", Body: wasm}
		if answer, err := n.client.Do(t.Context(), upload); err != nil || answer.Status != 201 {
			t.Fatalf("%s: %d %s %v", name, answer.Status, answer.Body, err)
		}
	}
	if err := n.orders.Create(t.Context(), client.Config{Addr: addr}, "flat", "share", "busy"); err != nil {
		t.Fatal(err)
	}
	return n
}

// sell takes orders for a while, or until ctx ends with errOver, at a rate, and returns their
// latencies. Each must be taken, at the price that its rules make.
func (n *neighbour) sell(t *testing.T, ctx context.Context, length time.Duration, rate float64) []time.Duration {
	t.Helper()
	var took [shopConns][]time.Duration
	var wrong [shopConns]string
	first := n.sold
	sum, err := n.client.Run(ctx, client.Load{
		Length: length, Rate: rate,
		Next: func(i int, body, key []byte) (b, k []byte) { return n.orders.Next(first+i, body, key) },
		Observe: func(conn, status int, latency time.Duration, body []byte) {
			took[conn] = append(took[conn], latency)
			var order struct {
				Subtotal int64
				Discount int64 `json:"discount_total"`
			}
			if json.Unmarshal(body, &order) != nil || status != 201 || order.Discount != 990+order.Subtotal/20 {
				wrong[conn] = fmt.Sprintf("%d %s", status, body)
			}
		},
	})
	if err != nil && !errors.Is(err, errOver) || sum.Failed > 0 {
		t.Fatalf("%+v: %v", sum, err)
	}
	for _, order := range wrong {
		if order != "" {
			t.Fatal("an order of the neighbour: ", order)
		}
	}
	n.sold += sum.Answered
	return slices.Concat(took[:]...)
}

// evildoer uploads modules, each as another merchant.
type evildoer struct {
	t      *testing.T
	client *client.Client
}

// attack does to the server what a module's merchant can do with it.
func (e evildoer) attack(id, name string, m Module) {
	rule := "/api/v1/rules/r/versions"
	uploaded := e.do(client.Call{Path: rule + "?merchant_id=" + id, ContentType: "application/wasm", Body: m.Wasm})
	want := 201
	if m.Refusal != "" {
		want = 422
	}
	if len(m.Wasm) > abi.ModuleBytesMax {
		want = 413
	}
	if uploaded != want {
		e.t.Errorf("%s: the upload is answered with %d", name, uploaded)
	}
	if m.Refusal != "" {
		return
	}
	for range evaluations {
		if status := e.do(client.Call{Path: rule + "/1/evaluate?merchant_id=" + id, Body: []byte("{}")}); status != 200 {
			e.t.Errorf("%s: the evaluation is answered with %d", name, status)
		}
	}
	deal := fmt.Sprintf(`{"deal_id":%q,"merchant_id":%q,"title":"Bait","category":"fruit","currency":"CNY","unit_price":9900,"stock":1000,"rules":["r"]}`, id, id)
	if status := e.do(client.Call{Path: "/api/v1/deals", Body: []byte(deal)}); status != 201 {
		e.t.Errorf("%s: the deal is answered with %d", name, status)
	}
	want = 422 // the rule fails
	if m.Fault == 0 {
		want = 201
	}
	for i := range victims * perVictim {
		body := fmt.Sprintf(`{"deal_id":%q,"user_id":"u-%d","quantity":1}`, id, i%victims)
		if status := e.do(client.Call{Path: "/api/v1/orders", Body: []byte(body), IdempotencyKey: strconv.FormatInt(time.Now().UnixNano(), 36)}); status != want {
			e.t.Errorf("%s: an order is answered with %d, not %d", name, status, want)
		}
	}
}

// do posts, and returns the status.
func (e evildoer) do(call client.Call) int {
	call.Method = "POST"
	answer, err := e.client.Do(e.t.Context(), call)
	if err != nil {
		e.t.Error(err)
	}
	return answer.Status
}
