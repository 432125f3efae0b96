package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

const clockWord = "tell the time"

// TestMain is also the process whose clock TestStepClock moves: it answers each line
// with the time in seconds, by the wall and since it began.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != clockWord {
		os.Exit(m.Run())
	}
	begin := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().Unix(), int64(time.Since(begin).Seconds()))
	}
}

// TestCluster is the kit's short form: three nodes on loopback, of which one is killed,
// one frozen until its lease is over, and one told to leave.
func TestCluster(t *testing.T) {
	ctx := t.Context()
	var out bytes.Buffer
	k, err := newKit(ctx, plan{nodes: 3, deals: 12, perDeal: 2, rate: 240, seed: uint64(time.Now().UnixNano())}, &out)
	t.Cleanup(func() {
		if err := k.close(t.Failed()); err != nil {
			t.Error(err)
		}
		t.Log(out.String())
	})
	must(t, err)
	s, err := k.openShop(ctx, 0)
	must(t, err)
	nodes := k.balanced()
	must(t, s.everyDealAnswers(ctx))

	before := k.epochs(t, s)
	killed := clockd.Mono()
	nodes[0].kill()
	must(t, s.everyDealAnswers(ctx))
	answered, after := clockd.Mono(), k.epochs(t, s)
	// The promise is for machines of their own: the kit's long form holds it.
	if took := time.Duration(clockd.Mono() - killed); took > 6*withinPromise {
		t.Errorf("%v until every deal answered after kill -9", took)
	}
	must(t, nodes[0].start(ctx))

	must(t, stop(nodes[1].cmd))
	must(t, k.sleep(ctx, lease+time.Second))
	must(t, cont(nodes[1].cmd))
	must(t, s.everyDealAnswers(ctx))
	must(t, until(ctx, "who was frozen is back", func() bool { return nodes[1].isReady(ctx) }))

	left := clockd.Mono()
	must(t, nodes[2].leave(ctx))
	must(t, s.everyDealAnswers(ctx))
	ops, fault := s.close()
	must(t, fault)

	var spared []time.Duration
	for _, o := range ops {
		if o.call > killed && o.call < answered && o.ret != 0 && before[o.deal] == after[o.deal] {
			spared = append(spared, o.wait())
		}
		if o.call > left && o.failures > 0 {
			t.Errorf("%v: %d tries failed after a node was told to leave", o, o.failures)
		}
	}
	// Most, and not all: a busy machine is late with anything.
	if most := quantile(spared, 0.9); len(spared) == 0 || most > sparedPromise {
		t.Errorf("after kill -9, %d questions about the deals of other nodes, of which one in ten waited for more than %v", len(spared), most)
	}
	t.Logf("after kill -9, %d questions about the deals of other nodes; P90 %v, the longest %v", len(spared), quantile(spared, 0.9), quantile(spared, 1))
	r := count("short", ops, killed)
	r.verdict, err = k.audit(ctx, s.all(), ops)
	must(t, err)
	k.tell(r)
	if len(r.violations) > 0 || r.unknown > 0 || r.acknowledged < 500 {
		t.Errorf("%d acknowledged, %d unknown, violations: %v", r.acknowledged, r.unknown, r.violations)
	}
}

// TestRollingUpgrade: nodes of the version before serve while this one brings their schema up
// to date, and beside nodes of this one in every mixture that an upgrade and its way back bring
// about, and take each other's deals up.
func TestRollingUpgrade(t *testing.T) {
	ctx := t.Context()
	before, err := versionBefore(ctx)
	if err != nil {
		why := fmt.Sprint("NOT RUN: the upgrade from the version before, which takes the repository's history: ", err)
		fmt.Fprintln(os.Stderr, why)
		if os.Getenv("REQUIRE_ALL") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	var out bytes.Buffer
	k, err := newKit(ctx, plan{nodes: 3, deals: 12, perDeal: 2, rate: 120, seed: uint64(time.Now().UnixNano()), from: before}, &out)
	t.Cleanup(func() {
		if err := k.close(t.Failed()); err != nil {
			t.Error(err)
		}
		t.Log(out.String())
	})
	must(t, err)
	runs := make(map[string]int)
	r, err := k.during(ctx, 0, "upgrade from "+before, func() (func() error, error) {
		if err := k.migrate(ctx, k.binary); err != nil { // the nodes are of the version before
			return nil, err
		}
		return nil, k.rollEach([]string{k.binary, k.before}, func(n *node) error {
			if err := errors.Join(n.leave(ctx), n.start(ctx)); err != nil {
				return err
			}
			runs[n.binary]++
			return k.sleep(ctx, time.Second)
		})
	}, (&fault{}).judge)
	must(t, err)
	k.tell(r)
	if runs[k.before] != 3 || runs[k.binary] != 3 || k.before == k.binary {
		t.Errorf("started %v", runs)
	}
	if len(r.violations) > 0 || r.acknowledged < 200 || r.takeOvers == 0 {
		t.Errorf("%d acknowledged, %d take-overs, violations: %v", r.acknowledged, r.takeOvers, r.violations)
	}
}

// epochs are those of a shop's deals.
func (k *kit) epochs(t *testing.T, s *shop) map[string]uint64 {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{URL: databaseURL(k.database.addrs()), Clock: k.clock})
	must(t, err)
	all := make(map[string]uint64)
	for _, id := range s.all() {
		head, err := store.Head(t.Context(), id)
		must(t, err)
		all[id] = head.Epoch
	}
	must(t, store.Close())
	return all
}

func TestStepClock(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, clockWord)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	answers := bufio.NewReader(out)
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		must(t, stepClock(t.Context(), cmd.Process.Pid, by))
		_, err := fmt.Fprintln(in)
		must(t, err)
		var wall, since int64
		_, err = fmt.Fscan(answers, &wall, &since)
		must(t, err)
		if off := wall - time.Now().Add(by).Unix(); off < -2 || off > 2 || since > 60 {
			t.Errorf("moved by %v: the process is off by %d s, and %d s old", by, off, since)
		}
	}
	must(t, in.Close())
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
