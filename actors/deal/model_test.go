package deal_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// model is a deal as one would write it without a thought for speed: a list of
// orders, and every number counted from it when it is asked for. It decides by
// itself and knows nothing of events.
type model struct {
	spec           deal.Spec
	stock          int64
	paused, closed bool
	orders         []*modelOrder
	groups         []*modelGroup
	seq            uint64 // of the last event
	at             int64  // of the last event
}

type modelOrder struct {
	seq              uint64
	user, key, wish  string
	units            int64
	at, expires      int64
	status           deal.OrderStatus
	group            *modelGroup
	subtotal, rebate int64
}

type modelGroup struct {
	seq    uint64
	ends   int64
	status deal.GroupStatus
}

func (m *model) units(user string, statuses ...deal.OrderStatus) (n int64) {
	for _, o := range m.orders {
		if (user == "" || o.user == user) && slices.Contains(statuses, o.status) {
			n += o.units
		}
	}
	return n
}

func (m *model) reserved() int64 { return m.units("", deal.Reserved, deal.Paid) }
func (m *model) sold() int64     { return m.units("", deal.Confirmed) }
func (m *model) available() int64 {
	return m.stock - m.reserved() - m.sold()
}

func (m *model) held(user string) int64 {
	return m.units(user, deal.Reserved, deal.Paid, deal.Confirmed)
}

func (m *model) members(g *modelGroup, statuses ...deal.OrderStatus) (list []*modelOrder) {
	for _, o := range m.orders {
		if o.group == g && slices.Contains(statuses, o.status) {
			list = append(list, o)
		}
	}
	return list
}

func (m *model) view(g *modelGroup) deal.GroupView {
	if g == nil {
		return deal.GroupView{}
	}
	return deal.GroupView{
		Seq: g.seq, Size: m.spec.Group.Size, Status: g.status, ExpiresAt: g.ends,
		Members: uint32(len(m.members(g, deal.Reserved, deal.Paid, deal.Confirmed))),
	}
}

func (m *model) event(at int64) uint64 {
	m.seq++
	m.at = at
	return m.seq
}

func (m *model) ended(at int64) bool { return m.closed || m.spec.EndsAt != 0 && at >= m.spec.EndsAt }

// pass lets run out what has run out at now.
func (m *model) pass(now int64) {
	for _, o := range m.orders {
		if o.status == deal.Reserved && o.expires <= now {
			o.status = deal.Expired
			m.event(max(now, m.at))
		}
	}
	for _, g := range m.groups {
		if g.status != deal.Forming || g.ends > now {
			continue
		}
		g.status = deal.Failed
		m.event(max(now, m.at))
		for _, o := range m.members(g, deal.Reserved) {
			o.status = deal.Expired
		}
		for _, o := range m.members(g, deal.Paid) {
			o.status = deal.RefundDue
		}
	}
}

// due returns the next moment at which something happens by itself.
func (m *model) due(now int64) int64 {
	var times []int64
	for _, o := range m.orders {
		if o.status == deal.Reserved {
			times = append(times, o.expires)
		}
	}
	for _, g := range m.groups {
		if g.status == deal.Forming {
			times = append(times, g.ends)
		}
	}
	for _, at := range []int64{m.spec.StartsAt, m.spec.EndsAt} {
		if at > now && !m.closed {
			times = append(times, at)
		}
	}
	if len(times) == 0 {
		return 0
	}
	return slices.Min(times)
}

// place decides an order. The order that comes back is the new one, or the one
// that the key names, which again is true of.
func (m *model) place(at int64, c *deal.Command) (o *modelOrder, again bool, code deal.Code) {
	user, key := string(c.User), string(c.Key)
	wish := fmt.Sprint(c.Quantity, c.Codes, c.Attributes, c.GroupMode, c.Group)
	for i := len(m.orders) - 1; i >= 0 && c.Kind == deal.Place; i-- {
		if o := m.orders[i]; o.user == user && o.key == key && o.at > at-24*60*60*1000 {
			if o.wish != wish {
				return nil, false, deal.IdempotencyMismatch
			}
			return o, true, deal.OK
		}
	}
	switch {
	case m.ended(at):
		return nil, false, deal.DealEnded
	case m.paused:
		return nil, false, deal.DealPaused
	case at < m.spec.StartsAt:
		return nil, false, deal.DealNotStarted
	case m.available() == 0:
		return nil, false, deal.SoldOut
	case c.Quantity < 1 || c.Quantity > 1_000_000:
		return nil, false, deal.QuantityInvalid
	case c.Quantity > m.available():
		return nil, false, deal.SoldOut
	case m.spec.PerUserLimit != 0 && m.held(user)+c.Quantity > int64(m.spec.PerUserLimit):
		return nil, false, deal.UserLimitExceeded
	}
	price, g := m.spec.UnitPrice, (*modelGroup)(nil)
	if c.GroupMode != deal.Alone {
		price = m.spec.Group.UnitPrice
		if g, code = m.join(at, c); code != deal.OK {
			return nil, false, code
		}
	}
	o = &modelOrder{
		user: user, key: key, wish: wish, units: c.Quantity, at: at, expires: at + m.spec.ReserveTTL,
		status: deal.Reserved, group: g, subtotal: price * c.Quantity,
	}
	if !m.price(o, len(c.Codes) > 0) {
		return nil, false, deal.RuleRejected
	}
	if c.Kind == deal.Quote {
		return o, false, deal.OK
	}
	o.seq = m.event(at)
	if c.GroupMode == deal.OpenGroup {
		g.seq = o.seq
		m.groups = append(m.groups, g)
	}
	m.orders = append(m.orders, o)
	return o, false, deal.OK
}

func (m *model) join(at int64, c *deal.Command) (*modelGroup, deal.Code) {
	if m.spec.Group.Size == 0 {
		return nil, deal.GroupNotOffered
	}
	if c.GroupMode == deal.OpenGroup {
		return &modelGroup{ends: at + m.spec.Group.Window, status: deal.Forming}, deal.OK
	}
	for _, g := range m.groups {
		if g.seq != c.Group {
			continue
		}
		switch {
		case g.status != deal.Forming:
			return nil, deal.GroupClosed
		case m.view(g).Members == m.spec.Group.Size:
			return nil, deal.GroupFull
		}
		return g, deal.OK
	}
	return nil, deal.GroupNotFound
}

func (m *model) price(o *modelOrder, vip bool) bool {
	for _, rule := range m.spec.Rules {
		answer, fault := modelRule(rule, o.subtotal-o.rebate, o.units, m.held(o.user), vip)
		switch {
		case fault && m.spec.OnRuleError == deal.RejectOnRuleError, answer.Outcome == abi.OutcomeReject:
			return false
		case fault:
			continue
		}
		o.rebate += answer.Discount
		if answer.Final {
			break
		}
	}
	return true
}

// modelRule is what the rules of the test answer.
func modelRule(rule string, left, units, held int64, vip bool) (out abi.Output, fault bool) {
	discount := func(n int64) abi.Output { return abi.Output{Outcome: abi.OutcomeDiscount, Discount: min(n, left)} }
	switch rule {
	case "flat":
		return discount(7), false
	case "tenth":
		if vip {
			return discount(left / 10), false
		}
	case "last":
		out = discount(3)
		out.Final = true
		return out, false
	case "picky":
		if units == 2 {
			return abi.Output{Outcome: abi.OutcomeReject}, false
		}
	case "flaky":
		return abi.Output{}, held%2 == 1
	}
	return abi.Output{}, false
}

type modelRules struct{}

func (modelRules) Evaluate(_, rule string, in *abi.Input, out *abi.Verdict) {
	out.Reset()
	answer, fault := modelRule(rule, in.Subtotal-in.DiscountSoFar, int64(in.Quantity), int64(in.UserQuantity), len(in.Codes) > 0)
	out.Version = 1
	if fault {
		out.Fault = abi.FaultTrap
	}
	out.Digest = digest(in)
	out.SetOutput(answer)
}

func digest(in *abi.Input) uint64 {
	encoded, err := in.Append(nil)
	if err != nil {
		panic(err)
	}
	return abi.Digest(encoded)
}

func (m *model) order(seq uint64) *modelOrder {
	for _, o := range m.orders {
		if o.seq == seq {
			return o
		}
	}
	return nil
}

// change confirms, cancels or refunds.
func (m *model) change(at int64, kind deal.CommandKind, seq uint64) deal.Code {
	o := m.order(seq)
	if o == nil {
		return deal.OrderNotFound
	}
	type step struct {
		from  deal.OrderStatus
		to    deal.OrderStatus
		after []deal.OrderStatus // where it has been done already
	}
	s := map[deal.CommandKind]step{
		deal.Confirm: {deal.Reserved, deal.Confirmed, []deal.OrderStatus{deal.Confirmed}},
		deal.Cancel:  {deal.Reserved, deal.Cancelled, []deal.OrderStatus{deal.Cancelled}},
		deal.Refund:  {deal.RefundDue, deal.Refunded, []deal.OrderStatus{deal.Refunded}},
	}[kind]
	if kind == deal.Confirm && o.group != nil {
		s.to, s.after = deal.Paid, []deal.OrderStatus{deal.Paid, deal.Confirmed}
	}
	switch {
	case slices.Contains(s.after, o.status):
		return deal.OK
	case o.status != s.from:
		return deal.OrderStateConflict
	}
	o.status = s.to
	m.event(at)
	if paid := m.members(o.group, deal.Paid); o.group != nil && len(paid) == int(m.spec.Group.Size) {
		o.group.status = deal.Complete
		for _, o := range paid {
			o.status = deal.Confirmed
		}
	}
	return deal.OK
}

func (m *model) patch(at int64, p *deal.Patch) deal.Code {
	switch {
	case m.ended(at):
		return deal.DealEnded
	case p.EndsAt != nil && *p.EndsAt != 0 && *p.EndsAt <= m.spec.StartsAt:
		return deal.DealInvalid
	}
	m.event(at)
	m.stock += p.StockAdd
	if p.EndsAt != nil {
		m.spec.EndsAt = *p.EndsAt
	}
	if p.PerUserLimit != nil {
		m.spec.PerUserLimit = *p.PerUserLimit
	}
	if p.Rules != nil {
		m.spec.Rules = *p.Rules
	}
	return deal.OK
}

func (m *model) flag(at int64, kind deal.CommandKind) deal.Code {
	if kind != deal.Close && m.ended(at) {
		return deal.DealEnded
	}
	flag, to := &m.closed, true
	if kind != deal.Close {
		flag, to = &m.paused, kind == deal.Pause
	}
	if *flag != to {
		*flag = to
		m.event(at)
	}
	return deal.OK
}

// machine drives a deal and its model side by side.
type machine struct {
	state    *deal.State
	model    *model
	now      int64
	journal  [][]byte
	snapshot []byte     // taken at the last restart
	reply    deal.Reply // one for all commands, as a request's is
	due      deal.Event
}

// TestModel plays random lives of a deal against the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"place":   m.place,
			"place 2": m.place,
			"place 3": m.place,
			"again":   m.again,
			"change":  m.change,
			"pay":     m.pay,
			"patch":   m.patch,
			"flag":    m.flag,
			"wait":    m.wait,
			"restart": m.restart,
		})
	})
}

var (
	drawRules = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"flat", "tenth", "last", "picky", "flaky"}), 0, 4, rapid.ID[string])
	drawTime  = rapid.SampledFrom([]int64{1, 1000, 60_000, 3_600_000, 86_399_999, 86_400_000, 86_400_001, 200_000_000})
)

func newMachine(t *rapid.T) *machine {
	spec := deal.Spec{
		ID: "d", Merchant: "m", Title: "t", Currency: [3]byte{'E', 'U', 'R'},
		UnitPrice: rapid.Int64Range(0, 20).Draw(t, "price"), Stock: rapid.Int64Range(1, 20).Draw(t, "stock"),
		PerUserLimit: rapid.Uint32Range(0, 5).Draw(t, "limit"), ReserveTTL: drawTime.Draw(t, "ttl"),
		StartsAt: rapid.SampledFrom([]int64{0, dayOne, dayOne + 60_000}).Draw(t, "starts"),
		Rules:    drawRules.Draw(t, "rules"), OnRuleError: deal.RulePolicy(rapid.IntRange(0, 1).Draw(t, "policy")),
	}
	if rapid.Bool().Draw(t, "ends") {
		spec.EndsAt = dayOne + 60_000 + drawTime.Draw(t, "ends after")
	}
	if rapid.IntRange(0, 3).Draw(t, "groups") > 0 {
		spec.Group = deal.GroupSpec{Size: rapid.Uint32Range(2, 3).Draw(t, "size"), Window: drawTime.Draw(t, "window"), UnitPrice: 5}
	}
	m := &machine{state: deal.NewState(), model: &model{spec: spec, stock: spec.Stock}, now: dayOne}
	m.decide(t, &deal.Command{Kind: deal.Create, At: m.now, Spec: &spec})
	m.model.event(m.now)
	return m
}

// decide has the deal decide a command, and applies what it decides: to the
// deal after a detour over the encoding.
func (m *machine) decide(t *rapid.T, c *deal.Command) *deal.Reply {
	m.reply.Reset()
	before := m.state.AppendSnapshot(nil)
	m.state.Decide(c, modelRules{}, &m.reply)
	if after := m.state.AppendSnapshot(nil); !bytes.Equal(before, after) {
		t.Fatalf("deciding changed the state")
	}
	if m.reply.Event.Kind != 0 {
		m.apply(t, &m.reply.Event)
		m.state.Settled(&m.reply)
	}
	return &m.reply
}

func (m *machine) apply(t *rapid.T, e *deal.Event) {
	record := e.Append(nil)
	var decoded deal.Event
	if err := decoded.Decode(record); err != nil {
		t.Fatal(err)
	}
	if again := decoded.Append(nil); !bytes.Equal(record, again) {
		t.Fatalf("%x is decoded as %x", record, again)
	}
	decoded.Seq = m.state.Seq + 1
	if err := m.state.Apply(&decoded); err != nil {
		t.Fatal(err)
	}
	m.journal = append(m.journal, record)
	if decoded.Kind == deal.OrderPlaced {
		m.retell(t, &decoded)
	}
}

// retell makes what an order's rules were told from its event, and from the
// deal as it was created: nothing that was changed since may be in it.
func (m *machine) retell(t *rapid.T, e *deal.Event) {
	var created deal.Event
	if err := created.Decode(m.journal[0]); err != nil {
		t.Fatal(err)
	}
	in := created.Spec.Input()
	e.Input(&in)
	for i, v := range e.Placed.Evaluations {
		if digest(&in) != v.Digest {
			t.Fatalf("rule %d of order %d was told something else than %+v", i, e.Seq, in)
		}
		in.DiscountSoFar += v.Discount
	}
	m.reprice(t, e)
}

// reprice has the order's price made once more: it must be what it was.
func (m *machine) reprice(t *rapid.T, e *deal.Event) {
	var again deal.Reply
	again.Reset()
	m.state.Spec.Reprice(e, modelRules{}, &again)
	if again.Code != deal.OK || again.Event.Kind != deal.OrderPlaced || !bytes.Equal(again.Event.Append(nil), e.Append(nil)) {
		t.Fatalf("%+v is repriced as %+v", e, again)
	}
}

func (m *machine) wait(t *rapid.T) {
	switch next := m.model.due(m.now); {
	case next != 0 && rapid.Bool().Draw(t, "until due"):
		m.now = max(m.now, next-rapid.Int64Range(0, 1).Draw(t, "just before"))
	default:
		m.now += drawTime.Draw(t, "wait")
	}
	for m.state.Due(m.now, &m.due) {
		m.apply(t, &m.due)
	}
	m.model.pass(m.now)
}

// stamp returns the time of a command that may have waited in the mailbox, and
// the time that its event will have.
func (m *machine) stamp(t *rapid.T) (at, effective int64) {
	at = m.now - rapid.SampledFrom([]int64{0, 0, 0, 1, 999}).Draw(t, "queued")
	return at, max(at, m.model.at)
}

func (m *machine) drawGroup(t *rapid.T) uint64 {
	seqs := []uint64{0, 1, m.model.seq + 1}
	for _, g := range m.model.groups {
		seqs = append(seqs, g.seq, g.seq, g.seq)
	}
	return rapid.SampledFrom(seqs).Draw(t, "group")
}

func (m *machine) drawOrder(t *rapid.T) uint64 {
	seqs := []uint64{0, 1, m.model.seq + 1}
	for _, o := range m.model.orders {
		seqs = append(seqs, o.seq, o.seq, o.seq)
	}
	return rapid.SampledFrom(seqs).Draw(t, "order")
}

func (m *machine) place(t *rapid.T) {
	c := &deal.Command{
		Kind:     rapid.SampledFrom([]deal.CommandKind{deal.Place, deal.Place, deal.Place, deal.Quote}).Draw(t, "kind"),
		User:     []byte(rapid.SampledFrom([]string{"ann", "bob", "cat"}).Draw(t, "user")),
		Key:      []byte(rapid.SampledFrom([]string{"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"}).Draw(t, "key")),
		Quantity: rapid.SampledFrom([]int64{1, 1, 1, 1, 2, 2, 3, 0, 1_000_001}).Draw(t, "quantity"),
	}
	if rapid.Bool().Draw(t, "vip") {
		c.Codes = [][]byte{[]byte("VIP")}
		c.Attributes = []abi.KV{{Key: []byte("channel"), Value: []byte("app")}}
	}
	c.GroupMode = deal.GroupMode(rapid.IntRange(0, 2).Draw(t, "mode"))
	if c.GroupMode == deal.JoinGroup {
		c.Group = m.drawGroup(t)
	}
	m.order(t, c)
}

// again repeats the wish of an order that is known.
func (m *machine) again(t *rapid.T) {
	if len(m.model.orders) == 0 {
		t.Skip()
	}
	o := m.model.orders[rapid.IntRange(0, len(m.model.orders)-1).Draw(t, "which")]
	record := m.journal[o.seq-1]
	var e deal.Event
	if err := e.Decode(record); err != nil {
		t.Fatal(err)
	}
	p := &e.Placed
	m.order(t, &deal.Command{
		Kind: deal.Place, User: p.User, Key: p.Key, Quantity: int64(p.Quantity), Codes: p.Codes, Attributes: p.Attributes,
		GroupMode: p.GroupMode, Group: p.Group,
	})
}

func (m *machine) order(t *rapid.T, c *deal.Command) {
	at, effective := m.stamp(t)
	c.At = at
	held, first := m.model.held(string(c.User)), true
	for _, o := range m.model.orders {
		first = first && o.user != string(c.User)
	}
	want, again, code := m.model.place(effective, c)
	r := m.decide(t, c)
	if r.Code != code || r.Replayed != again && code == deal.OK {
		t.Fatalf("code %d, replayed %t; the model says %d, %t", r.Code, r.Replayed, code, again)
	}
	if code != deal.OK {
		return
	}
	if again {
		if r.Order != want.seq || r.Status != want.status || r.Group != m.model.view(want.group) || r.Event.Kind != 0 {
			t.Fatalf("the same again: %+v; the model says %+v", r, want)
		}
		return
	}
	p := &r.Event.Placed
	if p.Subtotal() != want.subtotal || p.Discount != want.rebate || p.ExpiresAt != want.expires || r.Event.At != want.at ||
		int64(p.UserQuantity) != held || p.FirstOrder != first {
		t.Fatalf("%+v; the model says %+v", p, want)
	}
	if c.Kind == deal.Quote {
		if r.Order != 0 || r.Event.Kind != 0 {
			t.Fatal("a quote made an order")
		}
		return
	}
	if r.Order != want.seq || r.Status != deal.Reserved || r.Group != m.model.view(want.group) || p.Available != m.model.available() {
		t.Fatalf("%+v; the model says %+v", r, want)
	}
}

func (m *machine) change(t *rapid.T) {
	kind := rapid.SampledFrom([]deal.CommandKind{deal.Confirm, deal.Cancel, deal.Refund}).Draw(t, "kind")
	m.move(t, kind, m.drawOrder(t))
}

// pay pays the oldest order that waits for it, so that groups complete.
func (m *machine) pay(t *rapid.T) {
	for _, o := range m.model.orders {
		if o.status == deal.Reserved {
			m.move(t, deal.Confirm, o.seq)
			return
		}
	}
	t.Skip()
}

func (m *machine) move(t *rapid.T, kind deal.CommandKind, seq uint64) {
	at, effective := m.stamp(t)
	code := m.model.change(effective, kind, seq)
	r := m.decide(t, &deal.Command{Kind: kind, At: at, Order: seq, Ref: []byte("ref")})
	if r.Code != code {
		t.Fatalf("code %d; the model says %d", r.Code, code)
	}
	if o := m.model.order(seq); o != nil && (r.Status != o.status || r.Group != m.model.view(o.group)) {
		t.Fatalf("status %s, %+v; the model says %s, %+v", r.Status, r.Group, o.status, m.model.view(o.group))
	}
}

func (m *machine) patch(t *rapid.T) {
	p := &deal.Patch{StockAdd: rapid.Int64Range(0, 3).Draw(t, "stock_add")}
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	case 0:
		ends := max(0, m.now+rapid.SampledFrom([]int64{0, 1, 1000, 86_400_000, -2 * dayOne}).Draw(t, "ends"))
		p.EndsAt = &ends
	case 1:
		limit := rapid.Uint32Range(0, 5).Draw(t, "limit")
		p.PerUserLimit = &limit
	case 2:
		rules := drawRules.Draw(t, "rules")
		p.Rules = &rules
	}
	at, effective := m.stamp(t)
	code := m.model.patch(effective, p)
	if r := m.decide(t, &deal.Command{Kind: deal.Change, At: at, Patch: p}); r.Code != code {
		t.Fatalf("code %d; the model says %d", r.Code, code)
	}
}

func (m *machine) flag(t *rapid.T) {
	kinds := []deal.CommandKind{deal.Pause, deal.Pause, deal.Resume, deal.Resume, deal.Resume, deal.Close}
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	if kind == deal.Close && rapid.IntRange(0, 4).Draw(t, "really") > 0 { // it ends most of the fun
		kind = deal.Resume
	}
	at, effective := m.stamp(t)
	code := m.model.flag(effective, kind)
	if r := m.decide(t, &deal.Command{Kind: kind, At: at}); r.Code != code {
		t.Fatalf("code %d; the model says %d", r.Code, code)
	}
}

// restart loses the memory of the deal and brings it back in one of the ways
// in which that may happen.
func (m *machine) restart(t *rapid.T) {
	now := m.state.AppendSnapshot(nil)
	back := deal.NewState()
	switch rapid.SampledFrom([]string{"from its snapshot", "from an older snapshot", "from the journal"}).Draw(t, "how") {
	case "from its snapshot":
		if err := back.Restore(now); err != nil {
			t.Fatal(err)
		}
	case "from an older snapshot":
		if m.snapshot != nil {
			if err := back.Restore(m.snapshot); err != nil {
				t.Fatal(err)
			}
		}
		fallthrough
	case "from the journal":
		for _, record := range m.journal[back.Seq:] {
			var e deal.Event
			if err := e.Decode(record); err != nil {
				t.Fatal(err)
			}
			e.Seq = back.Seq + 1
			if err := back.Apply(&e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := back.AppendSnapshot(nil); !bytes.Equal(now, after) {
		t.Fatalf("it came back different:\n%x\n%x", now, after)
	}
	m.state = back
	m.snapshot = now
}

// check compares everything that can be seen.
func (m *machine) check(t *rapid.T) {
	s, want := m.state, m.model
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if s.Seq != want.seq || s.At != want.at || s.Stock != want.stock || s.Available != want.available() || s.Reserved != want.reserved() ||
		s.Sold != want.sold() || s.Paused != want.paused || s.Closed != want.closed {
		t.Fatalf("%+v; the model says %+v", s.View(), want)
	}
	if s.NextDue(m.now) != want.due(m.now) {
		t.Fatalf("next due at %d; the model says %d", s.NextDue(m.now), want.due(m.now))
	}
	for _, o := range want.orders {
		var r deal.Reply
		s.Decide(&deal.Command{Kind: deal.LookupOrder, At: m.now, Order: o.seq}, nil, &r)
		if r.Order != o.seq || r.Status != o.status || r.Group != want.view(o.group) {
			t.Fatalf("order %d %s, %+v; the model says %+v", r.Order, r.Status, r.Group, o)
		}
	}
	for _, g := range want.groups {
		var r deal.Reply
		s.Decide(&deal.Command{Kind: deal.LookupGroup, At: m.now, Group: g.seq}, nil, &r)
		if r.Group != want.view(g) {
			t.Fatalf("%+v; the model says %+v", r.Group, want.view(g))
		}
	}
	m.checkView(t)
	m.checkKeys(t)
}

func (m *machine) checkView(t *rapid.T) {
	v := m.state.View()
	record := v.AppendView(nil)
	back, err := deal.DecodeView(record)
	if err != nil || !bytes.Equal(record, back.AppendView(nil)) || back.Status(m.now) != v.Status(m.now) {
		t.Fatalf("%+v is decoded as %+v (%v)", v, back, err)
	}
}

// checkKeys: whoever asks for the keys is told at least those in the window.
func (m *machine) checkKeys(t *rapid.T) {
	told := map[string]bool{}
	next := m.state.EachKey(0, func(user, key []byte) { told[string(user)+" "+string(key)] = true })
	if next != m.state.KeyCount() || m.state.EachKey(next, func(_, _ []byte) { t.Fatal("a key after the last") }) != next {
		t.Fatalf("%d keys, %d told", m.state.KeyCount(), next)
	}
	for _, o := range m.model.orders {
		if o.at > m.model.at-24*60*60*1000 && !told[o.user+" "+o.key] {
			t.Fatalf("key %s of %s is not told", o.key, o.user)
		}
	}
}
