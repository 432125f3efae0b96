package gateway

import (
	"fmt"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// explainReply says how an order got its price.
type explainReply struct {
	OrderID       string        `json:"order_id"`
	DealID        string        `json:"deal_id"`
	Status        string        `json:"status"`
	Currency      string        `json:"currency"`
	UnitPrice     int64         `json:"unit_price"`
	Subtotal      int64         `json:"subtotal"`
	DiscountTotal int64         `json:"discount_total"`
	Total         int64         `json:"total"`
	Why           string        `json:"why"`
	Rules         []ruleAccount `json:"rules"`
}

// ruleAccount is one rule's part. All of it but the logs is from the journal;
// the logs are those of the same evaluation done again, and are absent if its
// input can no longer be made: the deal was changed since.
type ruleAccount struct {
	Rule        string   `json:"rule"`
	Version     uint32   `json:"version"`
	SHA256      string   `json:"sha256,omitempty"`
	InputDigest string   `json:"input_digest"`
	Outcome     string   `json:"outcome"`
	Discount    int64    `json:"discount"`
	Label       string   `json:"label,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Final       bool     `json:"final"`
	Fault       string   `json:"fault,omitempty"`
	Fuel        uint64   `json:"fuel"`
	Reproduced  bool     `json:"reproduced"` // the same input gave the same result again
	Logs        []string `json:"logs,omitempty"`
	Why         string   `json:"why"`
}

func (s *Server) explainOrder(c *call) error {
	o, err := s.orderOf(c)
	if err != nil {
		return err
	}
	v, err := s.node.Deal(o.Deal)
	if err != nil {
		return err
	}
	p := &o.Event.Placed
	r := explainReply{
		OrderID: string(deal.AppendOrderID(nil, o.Deal, o.Seq)), DealID: o.Deal, Status: o.Status.String(),
		Currency: string(o.Currency[:]), UnitPrice: p.UnitPrice, Subtotal: p.Subtotal(), DiscountTotal: p.Discount, Total: p.Total(),
		Why: whyPrice(p, string(o.Currency[:])), Rules: []ruleAccount{},
	}
	in := inputOf(o, &v)
	for i := range p.Evaluations {
		e := &p.Evaluations[i]
		r.Rules = append(r.Rules, s.account(v.Spec.Merchant, e, in))
		in.DiscountSoFar += e.Discount
	}
	return c.reply(fasthttp.StatusOK, r)
}

// account tells what one rule did and, where it still can, what it logged.
func (s *Server) account(merchantID string, e *deal.Evaluation, in *abi.Input) ruleAccount {
	a := ruleAccount{
		Rule: string(e.Rule), Version: e.Version, InputDigest: digestText(e.Digest), Outcome: e.Outcome.String(),
		Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Final: e.Final, Fuel: e.Fuel, Why: whyRule(e),
	}
	if e.Fault != abi.FaultNone {
		a.Outcome, a.Fault = "fault", e.Fault.String()
	}
	v, err := s.cfg.Rules.Version(merchantID, a.Rule, e.Version)
	if err != nil {
		return a // a fault of version 0: there was no such rule
	}
	a.SHA256 = v.SHA256
	again, err := s.cfg.Rules.EvaluateVersion(s.ctx, merchantID, a.Rule, e.Version, in)
	if err == nil && again.Digest == e.Digest {
		a.Logs = logLines(again.Logs)
		a.Reproduced = again.Fault == e.Fault && again.Outcome == e.Outcome && again.Discount == e.Discount && again.Fuel == e.Fuel
	}
	return a
}

// inputOf makes what the first rule was told. It is exact as long as nobody
// has changed the deal's end or its stock since: the digest tells.
func inputOf(o *actors.Order, v *deal.View) *abi.Input {
	p, s := &o.Event.Placed, v.Spec
	in := &abi.Input{
		Now: o.Event.At, UnitPrice: p.UnitPrice, Subtotal: p.Subtotal(), Quantity: p.Quantity, UserQuantity: p.UserQuantity,
		Available: p.Available + int64(p.Quantity), Stock: v.Stock, StartsAt: s.StartsAt, EndsAt: s.EndsAt, Currency: s.Currency,
		DealID: []byte(s.ID), UserID: p.User, Codes: p.Codes, Attributes: p.Attributes, DealAttributes: s.Attributes,
	}
	if p.FirstOrder {
		in.Flags |= abi.FlagFirstOrder
	}
	switch p.GroupMode {
	case deal.OpenGroup:
		in.Flags |= abi.FlagOpensGroup
	case deal.JoinGroup:
		in.Flags |= abi.FlagJoinsGroup
	case deal.Alone:
		return in
	}
	in.GroupSize, in.GroupMembers = s.Group.Size, p.GroupMembers-1
	return in
}

func whyPrice(p *deal.Placed, currency string) string {
	kind := "the deal's price"
	if p.GroupMode != deal.Alone {
		kind = "the price for members of a group"
	}
	text := fmt.Sprintf("%d × %d %s (%s)", p.Quantity, p.UnitPrice, currency, kind)
	if len(p.Evaluations) == 0 {
		return text + "; the deal has no rules"
	}
	return fmt.Sprintf("%s − %d by %d rules = %d, in minor units", text, p.Discount, len(p.Evaluations), p.Total())
}

func whyRule(e *deal.Evaluation) string {
	switch {
	case e.Fault == abi.FaultOutOfFuel:
		return "the rule used up its fuel and was skipped, as the deal says"
	case e.Fault != abi.FaultNone && e.Version == 0:
		return "there was no such rule; it was skipped, as the deal says"
	case e.Fault != abi.FaultNone:
		return "the rule failed and was skipped, as the deal says"
	case e.Outcome == abi.OutcomeDiscount && e.Final:
		return fmt.Sprintf("the rule took off %d and ended the pricing", e.Discount)
	case e.Outcome == abi.OutcomeDiscount:
		return fmt.Sprintf("the rule took off %d", e.Discount)
	case e.Final:
		return "the rule had nothing to add and ended the pricing"
	}
	return "the rule had nothing to add"
}
