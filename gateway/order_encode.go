package gateway

import (
	"strconv"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// orderView is an order as it is shown: what was placed never changes, status
// and group do.
type orderView struct {
	deal     []byte
	currency [3]byte
	seq      uint64
	at       int64 // Unix ms
	placed   *deal.Placed
	status   deal.OrderStatus
	group    deal.GroupView // Seq 0 = bought alone
	step     deal.Kind      // that brought ref, 0 = none did
	ref      string
	paid     string // payment_ref beside a ref of another name
}

// appendOrder appends the order as the contract spells it. It allocates
// nothing if b has room.
func appendOrder(b []byte, o *orderView) []byte {
	p := o.placed
	b = append(b, `{"order_id":"`...)
	b = deal.AppendOrderID(b, o.deal, o.seq)
	b = append(b, `","deal_id":"`...)
	b = append(b, o.deal...)
	b = append(b, `","user_id":"`...)
	b = append(b, p.User...)
	b = appendField(b, `","quantity":`, int64(p.Quantity))
	b = append(b, `,"status":"`...)
	b = append(b, o.status.String()...)
	b = append(b, `","currency":"`...)
	b = append(b, o.currency[:]...)
	b = append(b, '"')
	b = appendPrice(b, p)
	if o.group.Seq != 0 {
		b = append(b, `,"group":`...)
		b = appendGroup(b, o.deal, &o.group, false)
	}
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, o.seq, 10)
	b = appendField(b, `,"available":`, p.Available)
	b = append(b, `,"created_at":`...)
	b = appendTime(b, o.at)
	b = append(b, `,"expires_at":`...)
	b = appendTime(b, heldUntil(p))
	if o.paid != "" {
		b = append(b, `,"payment_ref":`...)
		b = appendString(b, o.paid)
	}
	if name := refName(o.step); name != "" && o.ref != "" {
		b = append(b, ',', '"')
		b = append(b, name...)
		b = append(b, '"', ':')
		b = appendString(b, o.ref)
	}
	return append(b, '}')
}

// refName is what the reference of a step is called, "" if it has none.
func refName(step deal.Kind) string {
	switch step {
	case deal.OrderConfirmed:
		return "payment_ref"
	case deal.OrderCancelled:
		return "reason"
	case deal.OrderRefunded:
		return "refund_ref"
	default:
		return ""
	}
}

// appendPrice appends what an order or a quote costs, and why, as fields.
func appendPrice(b []byte, p *deal.Placed) []byte {
	b = appendField(b, `,"unit_price":`, p.UnitPrice)
	b = appendField(b, `,"subtotal":`, p.Subtotal())
	b = appendField(b, `,"discount_total":`, p.Discount)
	b = appendField(b, `,"total":`, p.Total())
	b = append(b, `,"discounts":[`...)
	first := true
	for i := range p.Evaluations {
		e := &p.Evaluations[i]
		if e.Outcome != abi.OutcomeDiscount || e.Discount == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `{"rule":"`...)
		b = append(b, e.Rule...)
		b = appendField(b, `","version":`, int64(e.Version))
		b = append(b, `,"label":`...)
		b = appendString(b, e.Label)
		b = appendField(b, `,"amount":`, e.Discount)
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendGroup appends a group as it stands. The group of an order leaves out
// what the order says already: the deal.
func appendGroup(b, dealID []byte, g *deal.GroupView, alone bool) []byte {
	b = append(b, `{"group_id":"`...)
	b = deal.AppendGroupID(b, dealID, g.Seq)
	b = append(b, '"')
	if alone {
		b = append(b, `,"deal_id":"`...)
		b = append(b, dealID...)
		b = append(b, '"')
	}
	b = appendField(b, `,"size":`, int64(g.Size))
	b = appendField(b, `,"members":`, int64(g.Members))
	b = append(b, `,"status":"`...)
	b = append(b, g.Status.String()...)
	b = append(b, `","expires_at":`...)
	b = appendTime(b, g.ExpiresAt)
	return append(b, '}')
}

// heldUntil is when an unpaid order expires: with its reservation, or with its
// group if that ends first.
func heldUntil(p *deal.Placed) int64 {
	if p.GroupMode != deal.Alone {
		return min(p.ExpiresAt, p.GroupEnds)
	}
	return p.ExpiresAt
}
