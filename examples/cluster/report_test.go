package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReport: the page has a row for each fault, and one violation is enough to fail.
func TestReport(t *testing.T) {
	var told, out bytes.Buffer
	k := &kit{plan: plan{nodes: 3, deals: 4, perDeal: 2, rate: 100, slowest: 1}, out: &told}
	var spared []*op
	for _, waited := range []time.Duration{5 * time.Millisecond, 3 * time.Millisecond, 20 * time.Millisecond} {
		spared = append(spared, &op{what: look, deal: "d-1", node: "node-2", call: 1, reached: int64(time.Second), ret: int64(time.Second + waited)})
	}
	good := row{
		name: "kill -9 a node", asked: 50, acknowledged: 40, refused: 9, unknown: 1, failed: 3, again: 1500 * time.Millisecond,
		longest: 2 * time.Second, verdict: verdict{events: 40, takeOvers: 4, spared: spared, stale: 2, moves: []time.Duration{30 * time.Millisecond, 10 * time.Millisecond}},
	}
	bad := row{name: "none", asked: 10, acknowledged: 10, verdict: verdict{events: 10}}
	for range 7 {
		bad.violations = append(bad.violations, errors.New("I3: lost"))
	}
	for _, r := range []row{good, bad} {
		k.tell(r)
	}
	markdown := filepath.Join(t.TempDir(), "page.md")
	if err := k.report([]row{good}, &out, markdown); err != nil {
		t.Error(err)
	}
	if err := k.report([]row{good, bad}, &out, ""); err == nil || err.Error() != "none: 7 violations" {
		t.Errorf("seven violations: %v", err)
	}
	text, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"starts 3 nodes, etcd and PostgreSQL, all on loopback", "8 shoppers ask 100 times a second for\n4 deals",
		"Of 50 questions 40 were acknowledged; 40 events and 4 take-overs were held against them: **0 violations**",
		"| kill -9 a node | 50 | 40 | 9 | 3 | 1 | 1500 ms | 2000 ms | 5 ms / 20 ms / 20 ms | 2, 30 ms / 30 ms | 2 | 0 |",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if got := told.String(); !strings.Contains(got, "20 ms at node-2") || strings.Contains(got, " 5 ms at node-2") {
		t.Errorf("the slowest are not told of: %s", got)
	}
	if got := told.String(); strings.Count(got, "VIOLATION: I3: lost\n") != 5 || !strings.Contains(got, "\n  and 2 more\n") {
		t.Errorf("%s", got)
	}
}

// TestPossible: a fault is left out where it cannot be played, and says why.
func TestPossible(t *testing.T) {
	full := plan{nodes: 3, spaces: true, standby: true, from: "v1"}
	for _, f := range faults {
		if why := f.possible(&full); why != "" {
			t.Errorf("%s, with all that there is: %s", f.name, why)
		}
	}
	alone := 0
	for _, f := range faults {
		if f.possible(&plan{nodes: 1}) == "" {
			alone++
		}
	}
	if alone == 0 || alone == len(faults) {
		t.Errorf("%d of %d faults can happen to one node on loopback", alone, len(faults))
	}
	for why, c := range map[string]struct {
		needs need
		plan  plan
	}{
		"it takes network namespaces":                      {need{spaces: true}, plan{nodes: 5, standby: true, from: "v1"}},
		"it takes 3 nodes":                                 {need{nodes: 3}, plan{nodes: 2, spaces: true, standby: true, from: "v1"}},
		"it takes a standby":                               {need{standby: true}, plan{nodes: 5, spaces: true, from: "v1"}},
		"it takes --from, the revision of another version": {need{before: true}, plan{nodes: 5, spaces: true, standby: true}},
	} {
		if got := (&fault{needs: c.needs}).possible(&c.plan); got != why {
			t.Errorf("%q, want %q", got, why)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--nodes", "5", "--only", "kill|etcd", "--random", "7", "--standby=false"})
	if err != nil || o.nodes != 5 || o.random != 7 || o.standby || !o.only.MatchString("etcd lost and back") || o.only.MatchString("none") {
		t.Errorf("%v %+v", err, o)
	}
	if o, err = parse([]string{"--from", "v1", "--only", "upgrade"}); err != nil || !o.wanted(upgrade) || o.wanted("none") {
		t.Errorf("%v %+v", err, o)
	}
	for _, args := range []string{"--from v1 --only kill", "--from v1 --scale", "--nodes 0", "--nodes 6", "--deals 2", "--shoppers 0", "--rate 0", "--only (", "more", "--seed x"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s passes", args)
		}
	}
}

// TestSpeaksOfItself: what a shopper asked and was told is in a violation's text.
func TestSpeaksOfItself(t *testing.T) {
	order := &told{OrderID: "o-7"}
	for want, o := range map[string]*op{
		"place d-1 for u1, 2 units, key k1: 201": {what: place, deal: "d-1", user: "u1", key: "k1", quantity: 2, status: 201},
		"confirm d-1 o-7: 409":                   {what: confirm, deal: "d-1", order: order, status: 409},
		"look at d-1: 200":                       {what: look, deal: "d-1", status: 200},
	} {
		if got := o.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
