package gateway

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/reprice"
)

// explainReply says how an order got its price.
type explainReply struct {
	OrderID       string             `json:"order_id"`
	DealID        string             `json:"deal_id"`
	Status        string             `json:"status"`
	Currency      string             `json:"currency"`
	UnitPrice     int64              `json:"unit_price"`
	Subtotal      int64              `json:"subtotal"`
	DiscountTotal int64              `json:"discount_total"`
	Total         int64              `json:"total"`
	Why           string             `json:"why"`
	Rules         []ruleAccount      `json:"rules"`
	Verification  *verificationReply `json:"verification,omitempty"`
}

// ruleAccount is one rule's part. All of it is from the order's event, but for
// the logs and the detail of a fault: those are of the same evaluation done
// again, and are left empty if it came to something else.
type ruleAccount struct {
	Rule        string        `json:"rule"`
	Owner       string        `json:"owner,omitempty"`
	Version     uint32        `json:"version"`
	SHA256      string        `json:"sha256,omitempty"`
	InputDigest string        `json:"input_digest"`
	Input       recordedInput `json:"input"`
	InputABI    string        `json:"input_abi"` // the same as the rule got it, base64
	Outcome     string        `json:"outcome"`
	Discount    int64         `json:"discount"`
	Label       string        `json:"label,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	Final       bool          `json:"final"`
	Fault       string        `json:"fault,omitempty"`
	FaultDetail string        `json:"fault_detail,omitempty"`
	Fuel        uint64        `json:"fuel"`
	Reproduced  bool          `json:"reproduced"` // the same version gave the same answer again
	Logs        []string      `json:"logs"`
	Why         string        `json:"why"`
}

// recordedInput is what a rule was told, as a body of the evaluate call.
type recordedInput struct {
	Now  instant `json:"now"`
	Deal struct {
		DealID     string            `json:"deal_id"`
		Currency   string            `json:"currency"`
		UnitPrice  int64             `json:"unit_price"`
		Stock      int64             `json:"stock"`
		Available  int64             `json:"available"`
		StartsAt   *instant          `json:"starts_at,omitempty"`
		EndsAt     *instant          `json:"ends_at,omitempty"`
		Attributes map[string]string `json:"attributes"`
	} `json:"deal"`
	Order struct {
		UserID     string            `json:"user_id"`
		Quantity   uint32            `json:"quantity"`
		Codes      []string          `json:"codes"`
		Attributes map[string]string `json:"attributes"`
	} `json:"order"`
	Group struct {
		Size    uint32 `json:"size"`
		Members uint32 `json:"members"`
		Opens   bool   `json:"opens"`
		Joins   bool   `json:"joins"`
	} `json:"group"`
	UserQuantity  uint32 `json:"user_quantity"`
	FirstOrder    bool   `json:"first_order"`
	DiscountSoFar int64  `json:"discount_so_far"`
}

func newRecordedInput(in *abi.Input) (r recordedInput) {
	r.Now = instant(in.Now)
	r.Deal.DealID, r.Deal.Currency, r.Deal.UnitPrice = string(in.DealID), string(in.Currency[:]), in.UnitPrice
	r.Deal.Stock, r.Deal.Available = in.Stock, in.Available
	r.Deal.StartsAt, r.Deal.EndsAt = optionalInstant(in.StartsAt), optionalInstant(in.EndsAt)
	r.Deal.Attributes, r.Order.Attributes = kvMap(in.DealAttributes), kvMap(in.Attributes)
	r.Order.UserID, r.Order.Quantity, r.Order.Codes = string(in.UserID), in.Quantity, make([]string, 0, len(in.Codes))
	for _, code := range in.Codes {
		r.Order.Codes = append(r.Order.Codes, string(code))
	}
	r.Group.Size, r.Group.Members = in.GroupSize, in.GroupMembers
	r.Group.Opens, r.Group.Joins = in.Flags&abi.FlagOpensGroup != 0, in.Flags&abi.FlagJoinsGroup != 0
	r.UserQuantity, r.FirstOrder, r.DiscountSoFar = in.UserQuantity, in.Flags&abi.FlagFirstOrder != 0, in.DiscountSoFar
	return r
}

// optionalInstant is nil for 0.
func optionalInstant(ms int64) *instant {
	if ms == 0 {
		return nil
	}
	return (*instant)(&ms)
}

// verificationReply says whether an order's price was the same again.
type verificationReply struct {
	Same        bool              `json:"same"`
	Verdict     string            `json:"verdict"`
	Differences []differenceReply `json:"differences"`
}

type differenceReply struct {
	Rule     string `json:"rule,omitempty"` // absent: of the order as a whole
	Field    string `json:"field"`
	Recorded string `json:"recorded"`
	Now      string `json:"now"`
}

func (s *Server) explainOrder(c *call) error {
	verify, err := c.queryFlag("verify")
	if err != nil {
		return err
	}
	o, err := s.orderOf(c)
	if err != nil {
		return err
	}
	v, err := s.node.Deal(s.patience(c), o.Deal)
	if err != nil {
		return err
	}
	var again *reprice.Verification
	err = s.try(c, func() (err error) {
		again, err = reprice.Verify(s.ctx, s.cfg.Rules, v.Spec, &o.Event)
		return err
	})
	if err != nil {
		return err
	}
	if c.who.role == shopper { // what a rule writes for its author is the merchant's
		for i := range again.Rules {
			again.Rules[i].Logs, again.Rules[i].FaultDetail = nil, ""
		}
	}
	r := newExplainReply(o, v.Spec, again)
	if verify {
		r.Verification = newVerificationReply(o, again)
	}
	return c.reply(fasthttp.StatusOK, r)
}

// try runs evaluations that no order waits for: a few of one caller at a time, each
// in its turn.
func (s *Server) try(c *call, evaluate func() error) (err error) {
	leavePoller()
	if !s.trials.run(c.who, func() { err = s.pace.Slice(s.front.stopping, evaluate) }) {
		return refuse(overloaded, noPlace)
	}
	if err != nil && s.front.stopping.Err() != nil {
		return &refusal{problem: draining}
	}
	return err
}

func newExplainReply(o *actors.Order, spec *deal.Spec, again *reprice.Verification) *explainReply {
	p, currency := &o.Event.Placed, string(o.Currency[:])
	r := &explainReply{
		OrderID: string(deal.AppendOrderID(nil, o.Deal, o.Seq)), DealID: o.Deal, Status: o.Status.String(),
		Currency: currency, UnitPrice: p.UnitPrice, Subtotal: p.Subtotal(), DiscountTotal: p.Discount, Total: p.Total(),
		Why: whyPrice(p, currency), Rules: []ruleAccount{},
	}
	in := spec.Input()
	o.Event.Input(&in)
	for i := range p.Evaluations {
		e := &p.Evaluations[i]
		a := newRuleAccount(e, &again.Rules[i])
		a.Input, a.Why = newRecordedInput(&in), whyRule(e, &again.Rules[i], currency)
		r.Rules = append(r.Rules, a)
		in.DiscountSoFar += e.Discount
	}
	return r
}

func newRuleAccount(e *deal.Evaluation, again *reprice.Again) ruleAccount {
	a := ruleAccount{
		Rule: string(e.Rule), Version: e.Version, InputDigest: digestText(e.Digest), InputABI: base64.StdEncoding.EncodeToString(again.Input),
		Outcome: e.Outcome.String(), Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Final: e.Final, Fuel: e.Fuel,
		Reproduced: len(again.Differences) == 0, Logs: []string{},
	}
	if e.Version != 0 {
		a.SHA256, a.Owner = fmt.Sprintf("%x", e.SHA256), "merchant"
	}
	if e.House {
		a.Owner = "house"
	}
	if e.Fault != abi.FaultNone {
		a.Outcome, a.Fault = "fault", e.Fault.String()
	}
	if a.Reproduced {
		a.Logs, a.FaultDetail = logLines(again.Logs), again.FaultDetail
	}
	return a
}

func newVerificationReply(o *actors.Order, again *reprice.Verification) *verificationReply {
	r := &verificationReply{Same: again.Same(), Differences: []differenceReply{}}
	add := func(rule string, differences []reprice.Difference) {
		for _, d := range differences {
			r.Differences = append(r.Differences, differenceReply{rule, d.Field, d.Recorded, d.Now})
		}
	}
	var named []string
	for i := range again.Rules {
		e := &o.Event.Placed.Evaluations[i]
		add(string(e.Rule), again.Rules[i].Differences)
		named = append(named, ruleName(e))
	}
	add("", again.Differences)
	switch {
	case !r.Same:
		r.Verdict = fmt.Sprintf("Not the same: priced again from its recorded input, the order differs in %d places. Tell an operator.", len(r.Differences))
	case len(named) == 0:
		r.Verdict = "The same: no rule ran, so the total is the subtotal."
	default:
		r.Verdict = fmt.Sprintf("The same: priced again from its recorded input, the order costs what it did; result, input digest and fuel of %s are equal.",
			strings.Join(named, ", "))
	}
	return r
}

// The sentences are for a support agent, who knows neither modules nor minor
// units.

func whyPrice(p *deal.Placed, currency string) string {
	kind := "the deal's price"
	if p.GroupMode != deal.Alone {
		kind = "the price for members of a group"
	}
	text := fmt.Sprintf("%d × %s (%s)", p.Quantity, moneyText(p.UnitPrice, currency), kind)
	switch {
	case len(p.Evaluations) == 0:
		return text + " = " + moneyText(p.Total(), currency) + "; no rule ran"
	case p.Discount == 0:
		return text + " = " + moneyText(p.Total(), currency) + "; no rule took anything off"
	}
	return text + " = " + moneyText(p.Subtotal(), currency) + "; " + moneyText(-p.Discount, currency) + " by the deal's rules = " + moneyText(p.Total(), currency)
}

// ruleName is how people call a version of a rule.
func ruleName(e *deal.Evaluation) string {
	if e.Version == 0 {
		return string(e.Rule)
	}
	return string(e.Rule) + " v" + strconv.FormatUint(uint64(e.Version), 10)
}

func whyRule(e *deal.Evaluation, again *reprice.Again, currency string) string {
	text := ruleName(e) + ": "
	switch {
	case e.Fault != abi.FaultNone:
		return text + whySkipped(e, again)
	case e.Outcome == abi.OutcomeDiscount:
		label := string(e.Label)
		if label == "" {
			label = "a discount"
		}
		text += label + " → " + moneyText(-e.Discount, currency)
		if e.Discount == 0 {
			text += ", as nothing was left to take off"
		}
	default:
		text += "nothing to take off from this order"
	}
	if len(e.Reason) > 0 {
		text += " (reason: " + string(e.Reason) + ")"
	}
	if e.Final {
		text += "; it ended the pricing, so no later rule ran"
	}
	return text
}

// whySkipped says what was wrong with a rule that gave no answer. The order is
// there, so the deal skips such rules.
func whySkipped(e *deal.Evaluation, again *reprice.Again) string {
	what := "it failed"
	switch e.Fault {
	case abi.FaultOutOfFuel:
		what = fmt.Sprintf("it used up its %d units of fuel before it had an answer", e.Fuel)
	case abi.FaultTrap:
		what = "it crashed"
	case abi.FaultBadOutput:
		what = "its answer was not a valid one"
	case abi.FaultRuleInit:
		what = "it could not be started"
		if e.Version == 0 {
			what = "there was no rule of this name"
		}
	case abi.FaultNone:
	}
	if detail := again.FaultDetail; detail != "" && e.Fault != abi.FaultOutOfFuel && len(again.Differences) == 0 {
		what += ": " + detail
	}
	return "skipped, as the deal says for rules that fail: " + what
}
