package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// Outbox reads the events that webhooks are told from what is recorded of them: a topic
// is a deal, whose journal it reads, or a rule, whose changes it does. Of a deal, a
// Place's Mark is the end by the clock that was told, which is no event.
type Outbox struct {
	node  *actors.Node
	rules *plugins.Registry
}

// NewOutbox makes the source of a webhook.Hub.
func NewOutbox(node *actors.Node, rules *plugins.Registry) Outbox { return Outbox{node, rules} }

var _ webhook.Source = Outbox{}

// outboxPage is how many deals are looked at in one go.
const outboxPage = 1024

// Topics implements webhook.Source.
func (o Outbox) Topics(ctx context.Context, merchant string, fn func(string, webhook.Place, int64) error) error {
	for rule, changes := range o.rules.Changes(merchant) {
		if err := fn(RuleTopic(merchant, rule), webhook.Place{Seq: changes}, 0); err != nil {
			return err
		}
	}
	q := actors.DealQuery{Merchant: merchant, Limit: outboxPage}
	for {
		page, more, err := o.node.Deals(ctx, q)
		if err != nil {
			return err
		}
		now := o.node.Now().Wall
		for i := range page {
			v := &page[i]
			end, due := webhook.Place{Seq: v.Seq}, v.Spec.EndsAt
			if v.Status(now) == deal.Ended {
				end.Mark, due = v.Spec.EndsAt, 0
			}
			if err := fn(v.Spec.ID, end, due); err != nil {
				return err
			}
			q.After = v.Spec.ID
		}
		if !more {
			return nil
		}
	}
}

// ruleTopic begins the topics of rules: no deal's id holds it.
const ruleTopic = "~rule/"

// RuleTopic is the topic of a merchant's rule.
func RuleTopic(merchant, rule string) string { return ruleTopic + merchant + "/" + rule }

// Read implements webhook.Source.
func (o Outbox) Read(ctx context.Context, topic string, at webhook.Place, types []string, fn func(webhook.Event, webhook.Place) error) (webhook.Place, error) {
	if name, ok := strings.CutPrefix(topic, ruleTopic); ok {
		merchant, rule, _ := strings.Cut(name, "/")
		return o.readRule(ctx, merchant, rule, at, types, fn)
	}
	return o.readDeal(ctx, topic, at, types, fn)
}

// typeRolledBack is the one event of a rule: the other changes were asked for, or are an
// event of a deal.
const typeRolledBack = "rule.rolled_back"

// readRule reads the changes of a rule.
func (o Outbox) readRule(ctx context.Context, merchant, rule string, at webhook.Place, types []string, fn func(webhook.Event, webhook.Place) error) (webhook.Place, error) {
	err := o.rules.Audits(ctx, merchant, rule, at.Seq, func(a plugins.Audit) error {
		behind := webhook.Place{Seq: a.Seq}
		if (a.Action == plugins.ActionRollback || a.Action == plugins.ActionAutoRollback) && slices.Contains(types, typeRolledBack) {
			data, err := json.Marshal(ruleNews{rule, a.From, a.To, a.By, a.Why})
			if err != nil {
				return err
			}
			id := merchant + "/" + rule + "/" + strconv.FormatUint(a.Seq, 10)
			if err := fn(webhook.Event{ID: id, Type: typeRolledBack, CreatedAt: webhook.TimeText(a.At), Data: data}, behind); err != nil {
				return err
			}
		}
		at = behind
		return nil
	})
	if errors.Is(err, webhook.ErrStop) {
		err = nil
	}
	return at, err
}

// readDeal reads the journal of a deal. An event of it may be two that are told; if
// they do not fit into one delivery, the first is told twice.
func (o Outbox) readDeal(ctx context.Context, topic string, at webhook.Place, types []string, fn func(webhook.Event, webhook.Place) error) (webhook.Place, error) {
	tell := func(behind webhook.Place, id, kind string, ms int64, data any) error {
		if !slices.Contains(types, kind) {
			return nil
		}
		text, err := json.Marshal(data)
		if err != nil {
			return err
		}
		return fn(webhook.Event{ID: id, Type: kind, CreatedAt: webhook.TimeText(ms), Data: text}, behind)
	}
	v, err := o.node.Events(ctx, topic, at.Seq, func(v *deal.View, e *deal.Event) error {
		behind := webhook.Place{Seq: e.Seq, Mark: at.Mark}
		id := string(deal.AppendOrderID(nil, []byte(topic), e.Seq))
		if kind := newsOf[e.Kind]; slices.Contains(types, kind) {
			data, err := o.order(ctx, v, e)
			if err == nil {
				err = tell(behind, id, kind, e.At, data)
			}
			if err != nil {
				return err
			}
		}
		var err error
		switch {
		case e.Kind == deal.OrderPlaced && e.Placed.Available == 0:
			err = tell(behind, id+"-sold_out", "deal.sold_out", e.At, dealNews{DealID: topic})
		case e.Kind == deal.GroupFailed:
			err = tell(behind, id, "group.failed", e.At, dealNews{DealID: topic, GroupID: string(deal.AppendGroupID(nil, []byte(topic), e.Group))})
		case e.Kind == deal.RuleSwitchedOff:
			err = tell(behind, id, "rule.switched_off", e.At, dealNews{DealID: topic, RuleID: string(e.Rule)})
		case e.Kind == deal.DealClosed:
			behind.Mark = v.Spec.EndsAt // which is not told as well
			err = tell(behind, id, "deal.ended", e.At, dealNews{DealID: topic})
		}
		if err == nil {
			at = behind
		}
		return err
	})
	if err == nil && v.Spec.EndsAt != at.Mark && !v.Closed && v.Status(o.node.Now().Wall) == deal.Ended {
		ends := v.Spec.EndsAt
		behind := webhook.Place{Seq: at.Seq, Mark: ends}
		if err = tell(behind, topic+"-ended-"+webhook.TimeText(ends), "deal.ended", ends, dealNews{DealID: topic}); err == nil {
			at = behind
		}
	}
	if errors.Is(err, webhook.ErrStop) {
		err = nil
	}
	return at, err
}

// newsOf are the events of a deal that are told as one of an order.
var newsOf = map[deal.Kind]string{
	deal.OrderPlaced: "order.placed", deal.OrderConfirmed: "order.confirmed", deal.OrderCancelled: "order.cancelled",
	deal.OrderExpired: "order.expired", deal.OrderRefunded: "order.refunded",
}

// dealNews is what is told of a deal.
type dealNews struct {
	DealID  string `json:"deal_id"`
	GroupID string `json:"group_id,omitempty"`
	RuleID  string `json:"rule_id,omitempty"` // that is switched off
}

// ruleNews is what is told of a rule that went back.
type ruleNews struct {
	RuleID string `json:"rule_id"`
	From   uint32 `json:"from"`
	To     uint32 `json:"to"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// orderNews is what is told of an order. Seq is the event's and rises within a deal.
type orderNews struct {
	OrderID    string `json:"order_id"`
	DealID     string `json:"deal_id"`
	UserID     string `json:"user_id"`
	Quantity   uint32 `json:"quantity"`
	Currency   string `json:"currency"`
	Total      int64  `json:"total"`
	Seq        uint64 `json:"seq"`
	PaymentRef string `json:"payment_ref,omitempty"`
	Reason     string `json:"reason,omitempty"`
	RefundRef  string `json:"refund_ref,omitempty"`
}

// order tells of the order that an event is about. Only the event of its placing has
// all of it; for another that one is looked up.
func (o Outbox) order(ctx context.Context, v *deal.View, e *deal.Event) (orderNews, error) {
	seq, p := e.Seq, &e.Placed
	if e.Kind != deal.OrderPlaced {
		var placed actors.Order
		if err := o.node.LoadOrder(ctx, v.Spec.ID, e.Order, &placed); err != nil {
			return orderNews{}, err
		}
		seq, p = e.Order, &placed.Event.Placed
	}
	n := orderNews{
		OrderID: string(deal.AppendOrderID(nil, v.Spec.ID, seq)), DealID: v.Spec.ID, UserID: string(p.User),
		Quantity: p.Quantity, Currency: string(v.Spec.Currency[:]), Total: p.Total(), Seq: e.Seq,
	}
	switch e.Kind {
	case deal.OrderConfirmed:
		n.PaymentRef = string(e.Ref)
	case deal.OrderCancelled:
		n.Reason = string(e.Ref)
	case deal.OrderRefunded:
		n.RefundRef = string(e.Ref)
	default:
	}
	return n, nil
}
