package deal_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// TestScenarios plays the scripts of testdata. Each line of a script is a time
// since the deal's first day began, a command and its arguments; below stands
// what came of it. testdata/README.md lists the commands. After a change that
// is meant to change answers:
//
//	go test ./actors/deal -run TestScenarios -rewrite
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			play := newPlay()
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
				if d.Cmd == "new" {
					play = newPlay()
				}
				for _, line := range strings.Split(d.Input, "\n") {
					play.line(t, line)
				}
				return play.take()
			})
		})
	}
}

// play is a script under way: a deal, the journal that it wrote, and a twin
// that has only seen the journal.
type play struct {
	state, twin *deal.State
	journal     [][]byte
	rules       scriptedRules
	groups      map[uint64][]uint64 // orders by the seq of their group
	now         int64
	out         strings.Builder
}

// dayOne is 0s of every script.
const dayOne = 1_763_769_600_000 // 2025-11-22T00:00:00Z

func newPlay() *play {
	return &play{state: deal.NewState(), twin: deal.NewState(), rules: scriptedRules{}, groups: map[uint64][]uint64{}}
}

func (p *play) take() string {
	defer p.out.Reset()
	return p.out.String()
}

func (p *play) say(format string, args ...any) {
	fmt.Fprintf(&p.out, "%12s  %s\n", clockTime(p.now), fmt.Sprintf(format, args...))
}

func clockTime(at int64) string {
	s := (time.Duration(at-dayOne) * time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// words are a line's arguments. What a line says and no command asks for is a
// mistake in the script.
type words struct {
	t    *testing.T
	line string
	rest map[string][]string
}

func (w *words) has(key string) bool {
	_, ok := w.rest[key]
	delete(w.rest, key)
	return ok
}

func (w *words) list(key string) []string {
	list := w.rest[key]
	delete(w.rest, key)
	return list
}

func (w *words) text(key, missing string) string {
	if list := w.list(key); len(list) == 1 {
		return list[0]
	}
	return missing
}

func (w *words) number(key string, missing int64) int64 {
	s := w.text(key, "")
	if s == "" {
		return missing
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		w.t.Fatalf("%s: %v", w.line, err)
	}
	return n
}

func (w *words) span(key string, missing time.Duration) int64 {
	s := w.text(key, "")
	if s == "" {
		return missing.Milliseconds()
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatalf("%s: %v", w.line, err)
	}
	return d.Milliseconds()
}

// seq reads an order's or a group's number, which is written #n.
func (w *words) seq(key string) uint64 {
	n, err := strconv.ParseUint(strings.TrimPrefix(w.text(key, ""), "#"), 10, 64)
	if err != nil {
		w.t.Fatalf("%s: %v", w.line, err)
	}
	return n
}

func (p *play) line(t *testing.T, line string) {
	t.Helper()
	at, args, err := datadriven.ParseLine(line)
	if err != nil || len(args) == 0 {
		t.Fatalf("%q: not a time and a command (%v)", line, err)
	}
	since, err := time.ParseDuration(at)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	p.pass(t, dayOne+since.Milliseconds())
	w := &words{t: t, line: line, rest: map[string][]string{}}
	for _, a := range args[1:] {
		w.rest[a.Key] = a.Vals
	}
	p.do(t, args[0].Key, w)
	for key := range w.rest {
		t.Fatalf("%q: nobody asked for %s", line, key)
	}
	if err := p.state.Check(); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	p.compare(t)
}

// pass lets time go by, and what it owes happen.
func (p *play) pass(t *testing.T, now int64) {
	var e deal.Event
	for last := int64(0); ; {
		next := p.state.NextDue(p.now)
		if next == 0 || next > now {
			break
		}
		if next == last {
			t.Fatalf("due at %s, and it did not happen", clockTime(next))
		}
		last = next
		p.now = max(p.now, next)
		for p.state.Due(p.now, &e) {
			p.apply(t, &e)
			switch e.Kind {
			case deal.OrderExpired:
				p.say("due: #%d expired%s", e.Order, p.stock())
			case deal.GroupFailed:
				p.say("due: group #%d failed%s%s", e.Group, p.members(e.Group), p.stock())
			default:
				t.Fatalf("kind %d became due", e.Kind)
			}
		}
	}
	p.now = now
}

// apply makes an event part of the deal, of the journal, and of the twin that
// knows the journal only.
func (p *play) apply(t *testing.T, e *deal.Event) {
	t.Helper()
	e.Seq = p.state.Seq + 1
	if err := p.state.Apply(e); err != nil {
		t.Fatal(err)
	}
	record := e.Append(nil)
	p.journal = append(p.journal, record)
	follow(t, p.twin, record)
}

// follow applies a record to a state, and checks on the way that it says the
// same when written again.
func follow(t testing.TB, s *deal.State, record []byte) {
	t.Helper()
	var e deal.Event
	if err := e.Decode(record); err != nil {
		t.Fatal(err)
	}
	if again := e.Append(nil); !bytes.Equal(again, record) {
		t.Fatalf("event %d says %x, and after decoding %x", s.Seq+1, record, again)
	}
	e.Seq = s.Seq + 1
	if err := s.Apply(&e); err != nil {
		t.Fatal(err)
	}
}

// compare holds the state against its twin.
func (p *play) compare(t *testing.T) {
	t.Helper()
	if a, b := p.state.AppendSnapshot(nil), p.twin.AppendSnapshot(nil); !bytes.Equal(a, b) {
		t.Fatalf("the journal tells another story:\n%x\n%x", a, b)
	}
}

// decide runs one command and applies what comes of it.
func (p *play) decide(t *testing.T, c *deal.Command) *deal.Reply {
	t.Helper()
	c.At = p.now
	r := &deal.Reply{}
	p.state.Decide(c, p.rules, r)
	if r.Event.Kind == 0 {
		return r
	}
	if r.Code != deal.OK {
		t.Fatalf("refused with code %d, and yet an event of kind %d", r.Code, r.Event.Kind)
	}
	p.apply(t, &r.Event)
	p.state.Settled(r)
	return r
}

func (p *play) do(t *testing.T, command string, w *words) {
	t.Helper()
	simple := map[string]deal.CommandKind{
		"pause": deal.Pause, "resume": deal.Resume, "close": deal.Close,
		"confirm": deal.Confirm, "cancel": deal.Cancel, "refund": deal.Refund,
		"order": deal.LookupOrder, "group": deal.LookupGroup,
	}
	switch command {
	case "create":
		r := p.decide(t, &deal.Command{Kind: deal.Create, Spec: scriptedSpec(w)})
		p.tell(r, "created, %s", p.status())
	case "patch":
		r := p.decide(t, &deal.Command{Kind: deal.Change, Patch: scriptedPatch(w)})
		p.tell(r, "%s, %s", changed(r), p.status())
	case "pause", "resume", "close":
		r := p.decide(t, &deal.Command{Kind: simple[command]})
		p.tell(r, "%s, %s", changed(r), p.status())
	case "confirm", "cancel", "refund", "order":
		c := &deal.Command{Kind: simple[command], Order: w.seq("order"), Ref: []byte(w.text("ref", ""))}
		r := p.decide(t, c)
		again := ""
		if command != "order" && r.Code == deal.OK && r.Event.Kind == 0 {
			again = " already"
		}
		if r.Code == deal.OrderStateConflict {
			r.Detail = "it is " + r.Status.String()
		}
		p.tell(r, "#%d %s%s%s%s", r.Order, r.Status, again, p.group(r.Group), p.stock())
	case "group":
		r := p.decide(t, &deal.Command{Kind: simple[command], Group: w.seq("group")})
		p.tell(r, "%s", strings.TrimPrefix(p.group(r.Group), ", "))
	case "place":
		p.place(t, w)
	case "crowd":
		p.crowd(t, w)
	case "quote":
		p.quote(t, w)
	case "rule":
		p.rules[w.text("name", "")] = scriptedRule(w)
	case "restart":
		p.restart(t, w)
	case "status":
		p.say("%s", p.status())
	case "next":
		if at := p.state.NextDue(p.now); at != 0 {
			p.say("next due at %s", clockTime(at))
		} else {
			p.say("nothing is due, ever")
		}
	case "wait":
	default:
		t.Fatalf("%q: no such command", command)
	}
}

func changed(r *deal.Reply) string {
	if r.Event.Kind == 0 {
		return "no change"
	}
	return "changed"
}

var codes = map[deal.Code]string{
	deal.DealExists: "deal_exists", deal.DealNotFound: "deal_not_found", deal.DealNotStarted: "deal_not_started",
	deal.DealEnded: "deal_ended", deal.DealPaused: "deal_paused", deal.DealInvalid: "deal_invalid", deal.SoldOut: "sold_out",
	deal.UserLimitExceeded: "user_limit_exceeded", deal.QuantityInvalid: "quantity_invalid", deal.RuleRejected: "rule_rejected",
	deal.GroupNotOffered: "group_not_offered", deal.GroupNotFound: "group_not_found", deal.GroupFull: "group_full",
	deal.GroupClosed: "group_closed", deal.OrderNotFound: "order_not_found", deal.OrderStateConflict: "order_state_conflict",
	deal.IdempotencyMismatch: "idempotency_mismatch", deal.OrderTooLarge: "order_too_large",
}

// tell says how a command ended: its code, or the words for its success.
func (p *play) tell(r *deal.Reply, format string, args ...any) {
	switch {
	case r.Code != deal.OK && r.Detail != "":
		p.say("refused: %s (%s)", codes[r.Code], r.Detail)
	case r.Code != deal.OK:
		p.say("refused: %s", codes[r.Code])
	default:
		p.say(format, args...)
	}
}

func (p *play) status() string {
	v := p.state.View()
	if v.Spec == nil {
		return "no deal"
	}
	return fmt.Sprintf("%s%s of %d", v.Status(p.now), p.stock(), v.Stock)
}

func (p *play) stock() string {
	v := p.state.View()
	return fmt.Sprintf("; %d available, %d reserved, %d sold", v.Available, v.Reserved, v.Sold)
}

func (p *play) group(g deal.GroupView) string {
	if g.Size == 0 {
		return ""
	}
	name := "a new group"
	if g.Seq != 0 {
		name = fmt.Sprintf("group #%d", g.Seq)
	}
	return fmt.Sprintf(", %s %s: %d of %d until %s%s", name, g.Status, g.Members, g.Size, clockTime(g.ExpiresAt), p.members(g.Seq))
}

// members lists the orders that ever were in a group.
func (p *play) members(group uint64) string {
	var b strings.Builder
	for i, seq := range p.groups[group] {
		var r deal.Reply
		p.state.Decide(&deal.Command{Kind: deal.LookupOrder, Order: seq, At: p.now}, nil, &r)
		fmt.Fprintf(&b, "%s#%d %s", [...]string{" (", " "}[min(i, 1)], seq, r.Status)
	}
	if b.Len() > 0 {
		b.WriteString(")")
	}
	return b.String()
}

func scriptedOrder(w *words, kind deal.CommandKind) *deal.Command {
	c := &deal.Command{
		Kind: kind, User: []byte(w.text("user", "ann")), Key: []byte(w.text("key", "")),
		Quantity: w.number("qty", 1),
	}
	for _, code := range w.list("codes") {
		c.Codes = append(c.Codes, []byte(code))
	}
	for _, attribute := range w.list("attributes") {
		key, value, _ := strings.Cut(attribute, ":")
		c.Attributes = append(c.Attributes, abi.KV{Key: []byte(key), Value: []byte(value)})
	}
	switch {
	case w.has("open"):
		c.GroupMode = deal.OpenGroup
	case w.rest["join"] != nil:
		c.GroupMode, c.Group = deal.JoinGroup, w.seq("join")
	}
	return c
}

func (p *play) place(t *testing.T, w *words) {
	t.Helper()
	r := p.decide(t, scriptedOrder(w, deal.Place))
	switch {
	case r.Replayed && r.Code == deal.OK:
		p.say("the same answer again: #%d, now %s%s", r.Order, r.Status, p.group(r.Group))
	default:
		placed := &r.Event.Placed
		if r.Code == deal.OK && r.Group.Seq != 0 {
			p.groups[r.Group.Seq] = append(p.groups[r.Group.Seq], r.Order)
		}
		p.tell(r, "#%d %s: %s until %s%s%s", r.Order, r.Status, price(placed), clockTime(placed.ExpiresAt), p.group(r.Group), p.stock())
	}
	p.evaluations(r)
}

func (p *play) quote(t *testing.T, w *words) {
	t.Helper()
	before := p.state.AppendSnapshot(nil)
	r := p.decide(t, scriptedOrder(w, deal.Quote))
	p.tell(r, "would cost %s%s", price(&r.Event.Placed), p.group(r.Group))
	p.evaluations(r)
	if r.Event.Kind != 0 || r.Order != 0 || !bytes.Equal(before, p.state.AppendSnapshot(nil)) {
		t.Fatal("a quote changed the deal")
	}
}

func price(o *deal.Placed) string {
	s := fmt.Sprintf("%d x %d", o.Quantity, o.UnitPrice)
	if o.Discount > 0 {
		s += fmt.Sprintf(" - %d", o.Discount)
	}
	return fmt.Sprintf("%s = %d", s, o.Total())
}

func (p *play) evaluations(r *deal.Reply) {
	for _, v := range r.Event.Placed.Evaluations {
		s := v.Outcome.String()
		if v.Outcome == abi.OutcomeDiscount {
			s = fmt.Sprintf("discount %d", v.Discount)
		}
		if v.Fault != abi.FaultNone {
			s = "fault " + v.Fault.String()
		}
		if v.Final {
			s += ", final"
		}
		if len(v.Label)+len(v.Reason) > 0 {
			s += fmt.Sprintf(", %q %q", v.Label, v.Reason)
		}
		p.say("   rule %s v%d: %s", v.Rule, v.Version, s)
	}
}

// crowd places n orders of one unit with the keys key0, key1, …
func (p *play) crowd(t *testing.T, w *words) {
	t.Helper()
	n := int(w.number("n", 1))
	c := scriptedOrder(w, deal.Place)
	c.At = p.now
	key := append([]byte(nil), c.Key...)
	var r deal.Reply
	for i := range n {
		c.Key = strconv.AppendInt(key, int64(i), 10)
		r.Reset()
		p.state.Decide(c, p.rules, &r)
		if r.Code != deal.OK || r.Replayed {
			t.Fatalf("order %d of %d: code %d, replayed %t", i, n, r.Code, r.Replayed)
		}
		p.apply(t, &r.Event)
	}
	p.say("%d orders, #%d the last%s", n, r.Order, p.stock())
}

// restart loses the deal's memory and brings it back.
func (p *play) restart(t *testing.T, w *words) {
	t.Helper()
	before := p.state.AppendSnapshot(nil)
	restored := deal.NewState()
	switch {
	case w.has("journal"):
		for _, record := range p.journal {
			follow(t, restored, record)
		}
	case w.has("snapshot"):
		if err := restored.Restore(before); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatal("restart from journal or snapshot?")
	}
	if after := restored.AppendSnapshot(nil); !bytes.Equal(before, after) {
		t.Fatalf("the deal came back different:\n%x\n%x", before, after)
	}
	p.state = restored
}

func scriptedSpec(w *words) *deal.Spec {
	s := &deal.Spec{
		ID: "lychee", Merchant: "acme", Title: "Lychee 2.5 kg", Category: "fruit", Currency: [3]byte{'C', 'N', 'Y'},
		UnitPrice: w.number("price", 1000), Stock: w.number("stock", 10), PerUserLimit: uint32(w.number("limit", 0)),
		StartsAt: dayOne + w.span("starts", 0), ReserveTTL: w.span("ttl", 15*time.Minute),
		Rules: w.list("rules"), Attributes: []abi.KV{{Key: []byte("sku"), Value: []byte("LY-25")}},
	}
	if w.rest["ends"] != nil {
		s.EndsAt = dayOne + w.span("ends", 0)
	}
	if w.text("on_rule_error", "reject") == "skip" {
		s.OnRuleError = deal.SkipOnRuleError
	}
	if size := w.number("group", 0); size != 0 {
		s.Group = deal.GroupSpec{Size: uint32(size), Window: w.span("window", 24*time.Hour), UnitPrice: w.number("group_price", 800)}
	}
	return s
}

func scriptedPatch(w *words) *deal.Patch {
	p := &deal.Patch{StockAdd: w.number("stock_add", 0)}
	if title := w.text("title", ""); title != "" {
		p.Title = &title
	}
	if ends := w.rest["ends"]; ends != nil {
		at := int64(0)
		if ends[0] != "never" {
			at = dayOne + w.span("ends", 0)
		}
		delete(w.rest, "ends")
		p.EndsAt = &at
	}
	if w.rest["limit"] != nil {
		limit := uint32(w.number("limit", 0))
		p.PerUserLimit = &limit
	}
	if rules, ok := w.rest["rules"]; ok {
		if len(rules) == 1 && rules[0] == "" {
			rules = nil
		}
		delete(w.rest, "rules")
		p.Rules = &rules
	}
	return p
}

// scriptedRules are the rules of a script by name. One that was not described
// answers with a fault, as a missing rule does.
type scriptedRules map[string]func(*abi.Input) (abi.Output, abi.Fault)

func (s scriptedRules) Evaluate(_, rule string, in *abi.Input, out *abi.Verdict) {
	out.Reset()
	out.Version, out.Fuel, out.Digest = 1, 100, uint64(in.Now)
	f := s[rule]
	if f == nil {
		out.Fault = abi.FaultRuleInit
		return
	}
	answer, fault := f(in)
	out.Fault = fault
	out.SetOutput(answer)
}

// scriptedRule makes a rule of a line's words: what it answers (amount,
// percent of what is left to pay, reject, fault), to whom (code, first,
// joining, units held), and whether it is final.
func scriptedRule(w *words) func(*abi.Input) (abi.Output, abi.Fault) {
	amount, percent := w.number("amount", 0), w.number("percent", 0)
	reject, final, first, joining, quoting := w.has("reject"), w.has("final"), w.has("first"), w.has("joining"), w.has("quoting")
	code, fault, held := w.text("code", ""), w.text("fault", ""), w.number("held", 0)
	label, reason := w.text("label", ""), w.text("reason", "")
	return func(in *abi.Input) (abi.Output, abi.Fault) {
		for f := abi.FaultOutOfFuel; fault != "" && f <= abi.FaultRuleInit; f++ {
			if f.String() == fault {
				return abi.Output{Outcome: abi.OutcomeDiscount, Discount: in.Subtotal, Final: true}, f // counts for nothing
			}
		}
		meant := code == "" || bytes.Contains(bytes.Join(in.Codes, []byte(" ")), []byte(code))
		meant = meant && (!first || in.Flags&abi.FlagFirstOrder != 0) && (!joining || in.Flags&abi.FlagJoinsGroup != 0)
		meant = meant && (!quoting || in.Flags&abi.FlagQuote != 0) && int64(in.UserQuantity) >= held
		left := in.Subtotal - in.DiscountSoFar
		switch {
		case !meant:
			return abi.Output{Final: final}, abi.FaultNone
		case reject:
			return abi.Output{Outcome: abi.OutcomeReject, Reason: []byte(reason)}, abi.FaultNone
		}
		return abi.Output{
			Outcome: abi.OutcomeDiscount, Final: final, Discount: min(left, amount+left*percent/100),
			Label: []byte(label), Reason: []byte(reason),
		}, abi.FaultNone
	}
}

// TestBeforeCreation: nothing can be asked of a deal that is not there.
func TestBeforeCreation(t *testing.T) {
	s := deal.NewState()
	for kind := deal.Place; kind <= deal.LookupGroup; kind++ {
		if kind == deal.Create {
			continue
		}
		var r deal.Reply
		s.Decide(&deal.Command{Kind: kind, At: dayOne}, nil, &r)
		if r.Code != deal.DealNotFound || r.Event.Kind != 0 {
			t.Errorf("command %d: code %d, event %d", kind, r.Code, r.Event.Kind)
		}
	}
	v := s.View()
	if v.Status(dayOne) != 0 || s.NextDue(dayOne) != 0 || s.Due(dayOne, &deal.Event{}) || s.AppendSnapshot(nil) != nil || s.Check() != nil {
		t.Error("an empty state is not empty")
	}
}

// TestApplyRefuses: an event that the state cannot have given is an invariant
// broken, whatever it says.
func TestApplyRefuses(t *testing.T) {
	spec := &deal.Spec{
		ID: "d", Merchant: "m", Title: "t", Currency: [3]byte{'E', 'U', 'R'}, UnitPrice: 10, Stock: 10, ReserveTTL: 1000,
		Group: deal.GroupSpec{Size: 2, Window: 1000, UnitPrice: 8},
	}
	created := deal.Event{Kind: deal.DealCreated, At: 1, Seq: 1, Spec: spec}
	good := func() deal.Placed {
		return deal.Placed{User: []byte("u"), Key: []byte("k"), Quantity: 3, UnitPrice: 10, ExpiresAt: 1002, Available: 7, Stock: 10}
	}
	placed := func(change func(*deal.Placed)) deal.Event {
		p := good()
		change(&p)
		return deal.Event{Kind: deal.OrderPlaced, At: 2, Seq: 2, Placed: p}
	}
	second := func(change func(*deal.Placed)) deal.Event {
		e := placed(func(p *deal.Placed) { p.Key, p.Available = []byte("k2"), 4; change(p) })
		e.Seq = 3
		return e
	}
	order := placed(func(*deal.Placed) {})
	opening := placed(func(p *deal.Placed) {
		p.GroupMode, p.GroupMembers, p.GroupEnds, p.GroupSize = deal.OpenGroup, 1, 1002, 2
	})
	confirmed := deal.Event{Kind: deal.OrderConfirmed, At: 3, Seq: 3, Order: 2}
	for name, history := range map[string][]deal.Event{
		"seq":               {{Kind: deal.DealCreated, At: 1, Seq: 2, Spec: spec}},
		"time":              {created, {Kind: deal.DealPausedAt, At: 0, Seq: 2}},
		"not created":       {{Kind: deal.DealPausedAt, At: 1, Seq: 1}},
		"created twice":     {created, {Kind: deal.DealCreated, At: 1, Seq: 2, Spec: spec}},
		"unknown kind":      {created, {Kind: 99, At: 2, Seq: 2}},
		"no units":          {created, placed(func(p *deal.Placed) { p.Quantity, p.Available = 0, 10 })},
		"oversold":          {created, placed(func(p *deal.Placed) { p.Quantity, p.Available = 11, -1 })},
		"available":         {created, placed(func(p *deal.Placed) { p.Available = 8 })},
		"discount":          {created, placed(func(p *deal.Placed) { p.Discount = 31 })},
		"surcharge":         {created, placed(func(p *deal.Placed) { p.Discount = -1 })},
		"price":             {created, placed(func(p *deal.Placed) { p.UnitPrice = deal.MaxUnitPrice + 1 })},
		"no such group":     {created, placed(func(p *deal.Placed) { p.GroupMode, p.Group, p.GroupMembers, p.GroupSize = deal.JoinGroup, 1, 1, 2 })},
		"members":           {created, placed(func(p *deal.Placed) { p.GroupMode, p.GroupMembers, p.GroupSize = deal.OpenGroup, 2, 2 })},
		"group size":        {created, placed(func(p *deal.Placed) { p.GroupMode, p.GroupMembers, p.GroupSize = deal.OpenGroup, 1, 3 })},
		"stock then":        {created, placed(func(p *deal.Placed) { p.Stock = 11 })},
		"start":             {created, placed(func(p *deal.Placed) { p.StartsAt = 1 })},
		"end":               {created, placed(func(p *deal.Placed) { p.EndsAt = 3 })},
		"confirm nothing":   {created, {Kind: deal.OrderConfirmed, At: 2, Seq: 2, Order: 1}},
		"cancel nothing":    {created, {Kind: deal.OrderCancelled, At: 2, Seq: 2, Order: 1}},
		"expire nothing":    {created, {Kind: deal.OrderExpired, At: 2, Seq: 2, Order: 1}},
		"refund nothing":    {created, {Kind: deal.OrderRefunded, At: 2, Seq: 2, Order: 1}},
		"fail nothing":      {created, {Kind: deal.GroupFailed, At: 2, Seq: 2, Group: 1}},
		"confirm twice":     {created, order, confirmed, {Kind: deal.OrderConfirmed, At: 3, Seq: 4, Order: 2}},
		"cancel a sold one": {created, order, confirmed, {Kind: deal.OrderCancelled, At: 3, Seq: 4, Order: 2}},
		"expire a sold one": {created, order, confirmed, {Kind: deal.OrderExpired, At: 3, Seq: 4, Order: 2}},
		"refund a sold one": {created, order, confirmed, {Kind: deal.OrderRefunded, At: 3, Seq: 4, Order: 2}},
		"expires too early": {created, order, second(func(p *deal.Placed) { p.ExpiresAt = 1001 })},
		"expires at once":   {created, placed(func(p *deal.Placed) { p.ExpiresAt = 1 })},
		"key bound twice":   {created, order, second(func(p *deal.Placed) { p.Key = []byte("k") })},
		"group too short": {created, opening, second(func(p *deal.Placed) {
			p.GroupMode, p.GroupMembers, p.GroupEnds, p.GroupSize = deal.OpenGroup, 1, 1001, 2
		})},
		"stock": {created, {Kind: deal.DealChanged, At: 2, Seq: 2, Patch: &deal.Patch{StockAdd: deal.MaxStock}}},
		"refund of no payment": {
			created, opening,
			{Kind: deal.OrderConfirmed, At: 3, Seq: 3, Order: 2},
			{Kind: deal.GroupFailed, At: 3, Seq: 4, Group: 2},
			{Kind: deal.OrderRefunded, At: 3, Seq: 5, Order: 2, Payment: 4},
		},
		"fail twice": {created, opening, {Kind: deal.GroupFailed, At: 3, Seq: 3, Group: 2}, {Kind: deal.GroupFailed, At: 3, Seq: 4, Group: 2}},
	} {
		s := deal.NewState()
		for i := range history {
			err := s.Apply(&history[i])
			if last := i == len(history)-1; last != errors.Is(err, deal.ErrInvariant) {
				t.Errorf("%s: event %d: %v", name, i, err)
				break
			}
		}
	}
}

// TestCommandBounds: what the journal could not hold must not reach a deal.
func TestCommandBounds(t *testing.T) {
	long := make([]byte, deal.MaxTextLen+1)
	for name, c := range map[string]*deal.Command{
		"user":            {User: long},
		"key":             {Key: long},
		"reference":       {Ref: long},
		"codes":           {Codes: make([][]byte, deal.MaxCodes+1)},
		"code":            {Codes: [][]byte{long}},
		"attributes":      {Attributes: make([]abi.KV, deal.MaxAttributes+1)},
		"attribute key":   {Attributes: []abi.KV{{Key: long}}},
		"attribute value": {Attributes: []abi.KV{{Value: long}}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			p := newPlay()
			p.now = dayOne
			p.decide(t, &deal.Command{Kind: deal.Create, Spec: scriptedSpec(&words{t: t})})
			c.Kind, c.Quantity = deal.Place, 1
			p.decide(t, c)
		}()
	}
}
