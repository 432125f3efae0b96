package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// What may be done about an order once it is decided.
const (
	thenNothing = "nothing"
	thenLog     = "log"
	thenCache   = "cache"
)

// shopReport is what a shop's process says at its end.
type shopReport struct {
	Orders       int64
	Goroutines   int64   // at most
	MutexSeconds float64 // waited for mutexes while orders were placed, all goroutines together
	BlockSeconds float64 // waited for mutexes or channels, likewise
}

// Rates of the profiles: all contention on a mutex counts; a wait that is
// shorter than blockRate is sampled by its length.
const (
	mutexFraction = 1
	blockRate     = 10 * time.Microsecond
	goroutineTick = 5 * time.Millisecond
)

// serveOrders is a shop in its own process, until in ends.
func serveOrders(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	flags := flag.NewFlagSet("orders", flag.ContinueOnError)
	kind := flags.String("shop", shopLocked, "")
	what := flags.String("then", thenNothing, "")
	delay := flags.Duration("delay", 0, "of the cache")
	deals := flags.Int("deals", 1, "")
	dir := flags.String("dir", "", "of the log")
	if err := flags.Parse(args); err != nil {
		return err
	}
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return err
	}
	clock.Start()
	then, err := newRecorder(ctx, *what, *dir, clock, *delay)
	if err != nil {
		return err
	}
	opened, err := openShop(*kind, *deals, stallStock, then)
	if err != nil {
		return err
	}
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(int(blockRate))

	var report shopReport
	var orders, goroutines atomic.Int64
	clock.Every(goroutineTick, func() { goroutines.Store(max(goroutines.Load(), int64(runtime.NumGoroutine()))) })
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: orderHandler(opened, &orders), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(out, "%s%s\n", listenPrefix, listener.Addr())

	_, err = io.Copy(io.Discard, in)
	report.Orders, report.Goroutines = orders.Load(), goroutines.Load()
	var errMutex, errBlock error
	report.MutexSeconds, errMutex = blockedSeconds("mutex")
	report.BlockSeconds, errBlock = blockedSeconds("block")
	// Orders that still queue for a lock would take long, and nobody waits for
	// them any more: they end with the process.
	err = errors.Join(err, errMutex, errBlock, server.Close())
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	clock.Close()
	return errors.Join(err, json.NewEncoder(out).Encode(report))
}

// orderHandler is the HTTP edge that all shops share.
func orderHandler(s shop, orders *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		placed, err := s.place(o)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		orders.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(placed) // a shopper who has gone needs no answer
	}
}

func newRecorder(ctx context.Context, what, dir string, clock *clockd.Clock, delay time.Duration) (recorder, error) {
	switch what {
	case thenNothing:
		return noRecorder{}, nil
	case thenLog:
		f, err := os.CreateTemp(dir, "orders-*.log")
		if err != nil {
			return nil, err
		}
		// No name is needed any more, and so nothing is left behind.
		return &logRecorder{f}, os.Remove(f.Name())
	case thenCache:
		return startCache(ctx, clock, delay)
	}
	return nil, fmt.Errorf("nothing such can be done: %q", what)
}

type noRecorder struct{}

func (noRecorder) record([]receipt) error { return nil }

// logRecorder writes a line for each order, and all lines that it is given with
// one system call.
type logRecorder struct{ file *os.File }

func (l *logRecorder) record(receipts []receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	var lines []byte
	for _, r := range receipts {
		lines = fmt.Appendf(lines, "INFO order placed id=%s deal=%s user=%s total=%d available=%d\n", r.ID, r.Deal, r.User, r.Total, r.Available)
	}
	_, err := l.file.Write(lines)
	return err
}

// cacheRecorder tells a cache over the network, and all that it is given in one
// round trip. Several may be under way, each on a connection of its own.
type cacheRecorder struct {
	addr string
	idle chan net.Conn
	dial net.Dialer
}

const cacheIdleMax = 1024

// startCache starts a cache on loopback that answers a line after delay, and
// returns a client of it. Both end with the process.
func startCache(ctx context.Context, clock *clockd.Clock, delay time.Duration) (recorder, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveCache(ctx, clock, delay, conn)
		}
	}()
	return &cacheRecorder{addr: listener.Addr().String(), idle: make(chan net.Conn, cacheIdleMax)}, nil
}

func serveCache(ctx context.Context, clock *clockd.Clock, delay time.Duration, conn net.Conn) {
	lines := bufio.NewReader(conn)
	for {
		if _, err := lines.ReadSlice('\n'); err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		} else if err != nil {
			continue // the rest of a long line
		}
		if clock.Sleep(ctx, delay) != nil {
			return
		}
		if _, err := conn.Write([]byte("+OK\n")); err != nil {
			return
		}
	}
}

func (c *cacheRecorder) record(receipts []receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	line := []byte("MSET")
	for _, r := range receipts {
		line = append(line, ' ')
		line = append(line, r.ID...)
		line = append(line, ' ')
		line = strconv.AppendInt(line, r.Total, 10)
	}
	conn, err := c.connection()
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, len("+OK\n"))); err != nil {
		return err
	}
	select {
	case c.idle <- conn:
		return nil
	default:
		return conn.Close()
	}
}

func (c *cacheRecorder) connection() (net.Conn, error) {
	select {
	case conn := <-c.idle:
		return conn, nil
	default:
		return c.dial.DialContext(context.Background(), "tcp", c.addr)
	}
}

// blockedSeconds sums up what goroutines waited while they placed orders, by
// the runtime's mutex or block profile.
func blockedSeconds(profile string) (float64, error) {
	var text bytes.Buffer
	if err := pprof.Lookup(profile).WriteTo(&text, 1); err != nil {
		return 0, err
	}
	return parseBlocked(text.String())
}

// parseBlocked reads a contention profile in its text form: a head that says
// how long a cycle is, then for each stack a line "cycles count @ …" with the
// stack's functions below.
func parseBlocked(profile string) (seconds float64, err error) {
	var perSecond, cycles, total float64
	for line := range strings.Lines(profile) {
		if rest, ok := strings.CutPrefix(line, "cycles/second="); ok {
			if perSecond, err = strconv.ParseFloat(strings.TrimSpace(rest), 64); err != nil {
				return 0, err
			}
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) > 2 && fields[2] == "@":
			if cycles, err = strconv.ParseFloat(fields[0], 64); err != nil {
				return 0, err
			}
		case strings.HasPrefix(line, "#") && strings.Contains(line, "Shop).place+"):
			total += cycles
			cycles = 0 // a stack counts once, however often we are in it
		}
	}
	if perSecond == 0 {
		return 0, errors.New("the profile does not say how long a cycle is")
	}
	return total / perSecond, nil
}
