package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/guard"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/obs"
	"github.com/doorbuster/doorbuster/runtime/trace"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

const (
	presentTick = 10 * time.Millisecond // of the clock that stamps log lines
	rateClients = 1 << 16               // callers that the rate limit tells apart
)

// server is a node and everything around it. Its parts stand in the order in
// which they are started; they are stopped in the opposite one.
type server struct {
	cfg    config.Config
	public net.Listener
	admin  net.Listener

	// present tells the system's time, for log lines and for the lock of the
	// data folder: both are needed before the journal can say where clock,
	// which stamps all decisions, has to begin.
	present *clockd.Clock
	log     *obs.Log
	metrics *obs.Metrics
	front   *gateway.Front // answers that the rest is not ready yet
	store   journal.Store
	clock   *clockd.Clock
	hooks   *webhook.Hub
	guard   *guard.Guard // nil if there is none
	rules   *plugins.Registry
	cluster *cluster.Cluster // nil if the node is on its own
	node    *actors.Node
	tracer  *trace.Tracer // nil if nothing is traced
	edge    *gateway.Server
	keys    *gateway.Keys // nil in open mode
	unwatch func()        // nil if nobody else writes to the journal
	wrote   atomic.Int64  // when deals last had something written (Mono), 0 if they never had
	heard   atomic.Int64  // when the journal was last asked and answered (Mono), 0 if it is never asked

	asked   chan struct{} // closed when an operator asks for the end
	ask     sync.Once     // closes it
	leaving atomic.Bool   // the cluster
	broken  chan error    // a listener's failure
	took    time.Duration // to start
}

// startServer returns a server that serves. Log lines go to logs, and first of all what
// was set to no effect.
func startServer(ctx context.Context, cfg config.Config, logs io.Writer, idle ...error) (_ *server, err error) {
	begin := clockd.Mono()
	tuneProcess()
	s := &server{cfg: cfg, asked: make(chan struct{}), broken: make(chan error, 2)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.bind(ctx); err != nil { // first: a taken port should not wait for a recovery
		return nil, err
	}
	if err := s.startLog(logs); err != nil {
		return nil, err
	}
	for _, setting := range idle {
		s.log.Warn("a setting is ignored", "setting", setting)
	}
	if err := s.startFront(); err != nil {
		return nil, err
	}
	if err := s.startJournal(ctx); err != nil {
		return nil, err
	}
	if err := s.startHooks(ctx); err != nil {
		return nil, err
	}
	if err := s.startNode(ctx); err != nil {
		return nil, err
	}
	s.hooks.Start(gateway.NewOutbox(s.node, s.rules))
	if err := s.startEdge(ctx); err != nil {
		return nil, err
	}
	if s.cluster != nil {
		if err := s.joinCluster(ctx); err != nil {
			return nil, err
		}
	}
	s.watchStore()
	s.took = time.Duration(clockd.Mono() - begin)
	return s, nil
}

func (s *server) bind(ctx context.Context) (err error) {
	var listen net.ListenConfig
	if s.public, err = listen.Listen(ctx, config.Network(s.cfg.Listen), s.cfg.Listen); err != nil {
		return fmt.Errorf("%w; --listen %s is the address of the API", err, s.cfg.Listen)
	}
	if s.admin, err = listen.Listen(ctx, config.Network(s.cfg.Admin), s.cfg.Admin); err != nil {
		return fmt.Errorf("%w; --admin %s is the address for operators", err, s.cfg.Admin)
	}
	return nil
}

func (s *server) startLog(logs io.Writer) (err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.cfg.LogLevel)); err != nil {
		return err
	}
	if s.present, err = clockd.New(clockd.Config{Tick: presentTick}); err != nil {
		return err
	}
	s.present.Start()
	s.log, err = obs.NewLog(obs.LogConfig{Out: logs, Format: s.cfg.LogFormat, Level: level, Clock: s.present})
	return err
}

func (s *server) startFront() (err error) {
	s.metrics = obs.NewMetrics()
	s.metrics.Log(s.log)
	s.front, err = gateway.NewFront(gateway.FrontConfig{
		Metrics: s.metrics, Logger: s.log.Logger, Open: s.cfg.Auth == config.AuthOpen,
		NoLoops: s.cfg.Cluster, // a handler may wait for another node
	})
	if err != nil {
		return err
	}
	go func() { s.broken <- s.front.Serve(s.public) }()
	go func() { s.broken <- s.front.ServeAdmin(s.admin) }()
	return nil
}

func (s *server) startJournal(ctx context.Context) (err error) {
	s.front.Wait(gateway.StepJournal, 0, 0)
	if s.store, err = openStore(ctx, s.cfg, s.present, s.log.Logger); err != nil {
		return err
	}
	floor, err := actors.ClockFloor(ctx, s.store.Tables(), s.member())
	if err != nil {
		return err
	}
	if s.clock, err = clockd.New(clockd.Config{Floor: floor}); err != nil {
		return err
	}
	s.clock.Start()
	return nil
}

// startHooks makes the webhooks known. They are told nothing before there is a node.
func (s *server) startHooks(ctx context.Context) error {
	networks, err := config.Networks(s.cfg.WebhookNetworks)
	if err != nil {
		return err
	}
	s.hooks, err = webhook.New(ctx, webhook.Config{
		Tables: s.store.Tables(), Clock: s.clock, Logger: s.log.Logger, Loopback: s.cfg.Auth == config.AuthOpen, Networks: networks,
		Owns: s.delivers,
	})
	return err
}

// member is what tells this node's rows in shared tables apart, "" if it is on its own.
func (s *server) member() string {
	if !s.cfg.Cluster {
		return ""
	}
	return s.cfg.Advertise
}

func (s *server) startNode(ctx context.Context) (err error) {
	witness, err := s.startGuard()
	if err != nil {
		return err
	}
	s.front.Wait(gateway.StepRules, 0, 0)
	s.rules, err = plugins.New(ctx, plugins.Config{
		Tables:  s.store.Tables(),
		Now:     func() int64 { return s.clock.Now().Wall },
		Members: s.members,
		Changed: func(merchant, rule string) { s.hooks.Touch(merchant, gateway.RuleTopic(merchant, rule), 0) },
		Host:    compiler(s.cfg.Data, s.busy),
		Loading: func(done, of int) { s.front.Wait(gateway.StepRules, done, of) },
		Sleep:   s.clock.Sleep,
		Logger:  s.log.Logger,
	})
	if err != nil {
		return err
	}
	var others actors.Peers
	if s.cfg.Cluster {
		if err := s.newCluster(); err != nil {
			return err
		}
		others = peers{s.cluster}
	}
	s.node, err = actors.NewNode(ctx, s.store, s.clock, actors.Config{
		Peers: others, Member: s.member(), Leave: s.askToStop, Prepare: s.findRules,
		Rules:  s.rules,
		Logger: s.log.Logger,
		Fatal:  fatal,
		Guard:  witness,
		Listed: func(v deal.View) {
			s.hooks.Touch(v.Spec.Merchant, v.Spec.ID, v.Spec.EndsAt)
		},
		Recovering: func(done, deals int) { s.front.Wait(gateway.StepDeals, done, deals) },
		Observe: func(g journal.Group) {
			s.wrote.Store(clockd.Mono())
			s.metrics.JournalBatch(g.Events, g.Bytes, time.Duration(g.Nanos))
		},
		InFlightMax:     s.cfg.MaxInFlight,
		DealInFlightMax: s.cfg.MaxInFlightByDeal,
		RequestTimeout:  s.cfg.RequestTimeout,
		PassivateAfter:  s.cfg.PassivateAfter,
	})
	if err == nil {
		s.observe()
	}
	return err
}

// busyFor is how long after its last write a node is taken to have orders to take.
const busyFor = time.Second

// busy says whether there are orders to take.
func (s *server) busy() bool {
	wrote := s.wrote.Load()
	return wrote != 0 && clockd.Mono()-wrote < int64(busyFor)
}

// askToStop is an operator's wish that the process end.
func (s *server) askToStop() { s.ask.Do(func() { close(s.asked) }) }

func (s *server) startEdge(ctx context.Context) error {
	auth, err := s.auth(ctx)
	if err != nil {
		return err
	}
	var limiter *admit.Limiter
	if s.cfg.RateLimit > 0 {
		limiter, err = admit.NewLimiter(admit.LimiterConfig{
			PerSecond: float64(s.cfg.RateLimit), Burst: s.cfg.RateBurst, Clients: rateClients,
		})
		if err != nil {
			return err
		}
	}
	if s.cfg.TraceEndpoint != "" {
		s.tracer, err = trace.New(ctx, trace.Config{
			Endpoint: s.cfg.TraceEndpoint, Sample: s.cfg.TraceSample, Trust: s.cfg.TraceTrust,
			Version: version(), Clock: s.clock, Logger: s.log.Logger,
		})
		if err != nil {
			return err
		}
	}
	s.edge, err = gateway.New(gateway.Config{
		Node: s.node, Rules: s.rules, Store: s.store, Clock: s.clock, Metrics: s.metrics, Logger: s.log.Logger,
		Channels: names(s.cfg.Channels), Tracer: s.tracer,
		Webhooks: s.hooks, Member: s.public.Addr().String(), Auth: auth, Limiter: limiter, Front: s.front, Drain: s.askToStop, Ready: s.ready, Cluster: s.clusterView(), BacktestCPU: s.cfg.BacktestCPU,
	})
	return err
}

// ready says why the process should get no traffic, nil if it should. A journal that was
// full at the start has no house rules until some time after it has room again.
func (s *server) ready() error {
	if err := s.rules.HouseRules(); err != nil {
		return err
	}
	return s.memberReady()
}

// names splits a list by its commas.
func names(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// auth is nil in open mode.
func (s *server) auth(ctx context.Context) (*gateway.Auth, error) {
	if s.cfg.Auth == config.AuthOpen {
		return nil, nil //nolint:nilnil // that is how the gateway knows open mode
	}
	var err error
	if s.keys, err = gateway.LoadKeys(ctx, s.store.Tables()); err != nil {
		return nil, err
	}
	if s.cfg.JWKS == "" {
		if len(s.keys.List()) == 0 {
			s.log.Warn("there are no keys, so nobody can call: stop the server and run doorbuster keys create --role operator, with its --data or --postgres")
		}
		return &gateway.Auth{Keys: s.keys, Clock: s.clock}, nil
	}
	tokens, err := shopperTokens(s.cfg.JWKS)
	if err != nil {
		return nil, err
	}
	return &gateway.Auth{Keys: s.keys, Tokens: tokens, Clock: s.clock}, nil
}

// shopperTokens reads the keys of shoppers' tokens.
func shopperTokens(file string) (*gateway.Tokens, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	tokens, err := gateway.NewTokens(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return tokens, nil
}

// banner is the line that says that the server serves, and where.
func (s *server) banner() string {
	r := s.node.Recovery()
	node := ""
	if s.cluster != nil {
		node = fmt.Sprintf("node %s of a cluster, ", s.cfg.Advertise)
	}
	found := "no deals yet, nothing to recover"
	if r.Deals > 0 {
		found = fmt.Sprintf("recovered %s and replayed %s", count(r.Deals, "deal"), count(r.Events, "event"))
	}
	return fmt.Sprintf("listening on %s, admin on %s, auth %s, %s%s, %s, started in %v",
		s.public.Addr(), s.admin.Addr(), s.cfg.Auth, node, journalPlace(s.cfg), found, s.took.Round(time.Millisecond))
}

// edgeTimeout is how long connections may take to end after a drain that did not.
const edgeTimeout = 2 * time.Second

// stop drains the server and ends it. What does not end in time is left behind, which the
// error says: it was not acknowledged, and the journal has all that was.
func (s *server) stop() error {
	ctx, cancel := s.deadline(s.cfg.DrainTimeout)
	defer cancel()
	begin := clockd.Mono()
	s.log.Info("draining")
	notice, end := s.deadline(min(s.cfg.DrainNotice, s.cfg.DrainTimeout))
	defer end()
	if s.cluster != nil {
		s.leaveCluster(ctx, notice)
	}
	drained := s.node.Drain(ctx) // from here on /readyz and new orders are answered with 503 draining
	<-notice.Done()
	if ctx.Err() != nil { // the time is used up: what is left still gets to end
		ctx, cancel = s.deadline(edgeTimeout)
		defer cancel()
	}
	if errors.Is(drained, actors.ErrInFlight) {
		drained = s.node.Drain(ctx)
	}
	if drained != nil && !errors.Is(drained, actors.ErrInFlight) {
		s.log.Warn("not all snapshots and lists are written: the next start replays more", "error", drained)
		drained = nil
	}
	left := s.edge.Shutdown(ctx)
	if errors.Is(left, gateway.ErrConnectionsLeft) {
		s.log.Warn("some connections were still open", "error", left)
		left = nil
	}
	err := errors.Join(drained, left)
	if err != nil {
		err = fmt.Errorf("the server ended before all that was in flight was answered; what was acknowledged is in the journal: %w", err)
		s.log.Error("not all that was in flight has ended", "error", err)
	} else {
		s.log.Info("drained: all that was taken on is answered, and what was acknowledged is on disk",
			"took", time.Duration(clockd.Mono()-begin).Round(time.Millisecond), "deals_handed_over", s.node.Stats().HandedOver)
	}
	s.close()
	return err
}

// deadline is context.WithTimeout by the server's clock.
func (s *server) deadline(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := s.clock.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// close ends the parts that were started, the last one first.
func (s *server) close() {
	report := func(part string, err error) {
		if err != nil && s.log != nil {
			s.log.Error("a part did not end well", "part", part, "error", err)
		}
	}
	for _, listener := range []net.Listener{s.admin, s.public} {
		if listener != nil {
			_ = listener.Close() // the gateway may have closed it
		}
	}
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.hooks != nil {
		s.hooks.Close()
	}
	if s.cluster != nil {
		report("cluster", s.cluster.Close())
	}
	if s.node != nil {
		defer s.hurry()()
		s.node.Close()
	}
	if s.guard != nil {
		s.guard.Close() // if no node did
	}
	if s.tracer != nil {
		ctx, cancel := s.deadline(edgeTimeout)
		report("traces", s.tracer.Close(ctx))
		cancel()
	}
	if s.rules != nil {
		report("rules", s.rules.Close())
	}
	if s.clock != nil {
		s.clock.Close()
	}
	if s.store != nil {
		report("journal", s.store.Close())
	}
	if s.log != nil {
		s.log.Close()
	}
	if s.present != nil {
		s.present.Close()
	}
}
