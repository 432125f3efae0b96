package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	json "github.com/goccy/go-json"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// placeOrderRouted is the order path for a target that it did not recognise at
// a glance.
func (s *Server) placeOrderRouted(c *call) error {
	s.countOrder(c.ctx, clockd.Mono())
	return nil
}

// view shows an order as it stands.
func viewOf(o *actors.Order) *orderView {
	return &orderView{
		deal: []byte(o.Deal), currency: o.Currency, seq: o.Seq, at: o.Event.At,
		placed: &o.Event.Placed, status: o.Status, group: o.Group, step: o.Step, ref: o.Ref, paid: o.Paid,
	}
}

// mayTouch refuses callers whom an order does not concern.
func (s *Server) mayTouch(c *call, o *actors.Order) error {
	if c.who.is(shopper, string(o.Event.Placed.User)) {
		return nil
	}
	if c.who.role == merchant {
		v, err := s.node.Deal(s.patience(c), o.Deal)
		if err != nil || c.who.is(merchant, v.Spec.Merchant) {
			return err
		}
	}
	return refuse(forbidden, "the order belongs to somebody else")
}

// orderOf returns the order of an id as it stands in a path.
func (s *Server) orderOf(c *call) (*actors.Order, error) {
	name, seq, ok := deal.ParseOrderID(c.params[0])
	if !ok {
		return nil, &refusal{problem: orderNotFound}
	}
	if c.late {
		return nil, actors.ErrDraining
	}
	id, err := s.node.DealID(s.patience(c), name)
	var o *actors.Order
	if err == nil {
		o, err = s.node.Order(s.patience(c), id, seq)
	}
	if errors.Is(err, actors.ErrDealNotFound) {
		err = actors.ErrOrderNotFound
	}
	if err == nil {
		err = s.mayTouch(c, o)
	}
	return o, err
}

func (s *Server) getOrder(c *call) error {
	o, err := s.orderOf(c)
	if err != nil {
		return err
	}
	c.replyBytes(fasthttp.StatusOK, appendOrder(nil, viewOf(o)))
	return nil
}

func (s *Server) listOrders(c *call) error {
	user, err1 := c.queryID("user_id")
	dealID, err2 := c.queryID("deal_id")
	limit, err3 := c.limit()
	cursor, err4 := c.cursor()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if c.late {
		return actors.ErrDraining
	}
	noteDeal(c.ctx, []byte(dealID))
	q := actors.OrderQuery{User: user, Deal: dealID, Limit: limit}
	if err := s.mayList(c, &q); err != nil {
		return err
	}
	if cursor != "" {
		afterDeal, seq, _ := strings.Cut(cursor, " ")
		n, err := strconv.ParseUint(seq, 10, 63)
		if err != nil || !deal.ValidID(afterDeal) {
			return errBadCursor
		}
		q.AfterDeal, q.AfterSeq = afterDeal, n
	}
	orders, more, err := s.node.Orders(s.patience(c), q)
	if err != nil {
		return err
	}
	data, next := make([]json.RawMessage, len(orders)), ""
	for i, o := range orders {
		data[i] = appendOrder(nil, viewOf(o))
		next = o.Deal + " " + strconv.FormatUint(o.Seq, 10)
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, next))
}

// mayList narrows a query to what the caller may see.
func (s *Server) mayList(c *call, q *actors.OrderQuery) error {
	switch c.who.role {
	case shopper:
		if q.User != "" && !c.who.is(shopper, q.User) {
			return refuseField(forbidden, "user_id", "is somebody else")
		}
		q.User = string(c.who.name)
	case merchant:
		if q.Deal == "" {
			return refuseField(invalidRequest, "deal_id", "is required of a merchant")
		}
		_, err := s.ownDeal(c, []byte(q.Deal))
		return err
	default: // an operator sees everything
	}
	if q.User == "" && q.Deal == "" {
		return refuse(invalidRequest, "name a user_id, a deal_id or both")
	}
	return nil
}

// move is one way to move an order along, with the one field that its body may
// hold.
type move struct {
	kind  deal.CommandKind
	field string
}

var (
	confirmOrder = move{deal.Confirm, "payment_ref"}
	cancelOrder  = move{deal.Cancel, "reason"}
	refundOrder  = move{deal.Refund, "refund_ref"}
)

// ref reads the body. It may be left out, and so may its field.
func (m move) ref(c *call) ([]byte, error) {
	var body map[string]json.RawMessage
	if err := c.readOptionalJSON(&body); err != nil {
		return nil, err
	}
	for name := range body {
		if name != m.field {
			return nil, refuseField(unknownField, name, "is not a field of this request")
		}
	}
	ref := ""
	if raw := body[m.field]; raw != nil && json.Unmarshal(raw, &ref) != nil || len(ref) > deal.MaxReferenceLen {
		return nil, refuseField(invalidRequest, m.field, "must be a text of at most "+strconv.Itoa(deal.MaxReferenceLen)+" bytes")
	}
	return []byte(ref), nil
}

// handle moves the order along and shows it as it stands after.
func (m move) handle(s *Server, c *call) error {
	name, seq, ok := deal.ParseOrderID(c.params[0])
	if !ok {
		return &refusal{problem: orderNotFound}
	}
	ref, err := m.ref(c)
	if err != nil {
		return err
	}
	var o actors.Order
	id, err := s.node.DealID(s.patience(c), name)
	if err == nil {
		err = s.node.LoadOrder(s.patience(c), id, seq, &o)
	}
	if errors.Is(err, actors.ErrDealNotFound) {
		err = actors.ErrOrderNotFound
	}
	if err == nil {
		err = s.mayTouch(c, &o)
	}
	if err != nil {
		return err
	}
	return s.ask(c, own.ClassPriority, o.Deal, func(cmd *deal.Command) {
		cmd.Kind, cmd.Order, cmd.Ref = m.kind, seq, ref
	}, func(r *actors.Request) error {
		o.Status, o.Group = r.Reply.Status, r.Reply.Group
		if err := s.node.LoadStep(s.patience(c), r.Reply.Moved, &o); err != nil {
			return fmt.Errorf("%w: the order was moved: %w", actors.ErrDeadline, err)
		}
		// Another payment, or another refund, is money that somebody has to look at;
		// another reason to cancel is none to cancel again.
		if m.kind != deal.Cancel && r.Reply.Event.Kind == 0 && len(ref) > 0 && refName(o.Step) == m.field && o.Ref != string(ref) {
			if o.Ref == "" {
				return refuse(orderStateConflict, "the order was moved to this status without a "+m.field+", and takes none later")
			}
			return refuse(orderStateConflict, "the order has another "+m.field+": "+o.Ref)
		}
		c.replyBytes(fasthttp.StatusOK, appendOrder(nil, viewOf(&o)))
		return nil
	})
}

// quote answers what an order would cost. Nothing is reserved.
func (s *Server) quote(c *call) error {
	if !isJSON(c.ctx.Request.Header.ContentType()) {
		return refuse(unsupportedMediaType, wantJSON)
	}
	late, p := lateBody(c.ctx)
	if p != noProblem {
		return &refusal{problem: p}
	}
	r, err := s.acquire(c, own.ClassNew)
	if err != nil {
		return err
	}
	defer func() { s.vacate(r) }()
	r.Cmd.Kind = deal.Quote
	f := readOrder(c.ctx, r, nil, late, c.who)
	noteDeal(c.ctx, r.Deal)
	if f.problem != noProblem {
		s.refuseOrder(c.ctx, f)
		return nil
	}
	if err := s.node.CallWithin(s.patience(c), r); err != nil {
		if errors.Is(err, actors.ErrDeadline) {
			r = nil // it is no longer ours
		}
		return err
	}
	if r.Reply.Code != deal.OK {
		s.refuseOrder(c.ctx, faultOfReply(&r.Reply))
		return nil
	}
	c.replyBytes(fasthttp.StatusOK, appendQuote(nil, r))
	return nil
}

func appendQuote(b []byte, r *actors.Request) []byte {
	p := &r.Reply.Event.Placed
	b = append(b, `{"deal_id":"`...)
	b = append(b, r.Deal...)
	b = append(b, `","user_id":"`...)
	b = append(b, p.User...)
	b = appendField(b, `","quantity":`, int64(p.Quantity))
	b = append(b, `,"currency":"`...)
	b = append(b, r.View.Spec.Currency[:]...)
	b = append(b, '"')
	b = appendPrice(b, p)
	b = appendField(b, `,"available":`, r.View.Available)
	b = append(b, `,"quoted_at":`...)
	b = appendTime(b, r.Reply.Event.At)
	return append(b, '}')
}

func (s *Server) getGroup(c *call) error {
	name, seq, ok := deal.ParseGroupID(c.params[0])
	if !ok {
		return &refusal{problem: groupNotFound}
	}
	id, err := s.node.DealID(s.patience(c), name)
	if err == nil {
		err = s.ask(c, own.ClassNew, id, func(cmd *deal.Command) {
			cmd.Kind, cmd.Group = deal.LookupGroup, seq
		}, func(r *actors.Request) error {
			c.replyBytes(fasthttp.StatusOK, appendGroup(nil, []byte(id), &r.Reply.Group, true))
			return nil
		})
	}
	if errors.Is(err, actors.ErrDealNotFound) {
		return &refusal{problem: groupNotFound}
	}
	return err
}
