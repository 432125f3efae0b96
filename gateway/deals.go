package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// dealBody is the body of a request to create a deal.
type dealBody struct {
	DealID       *string           `json:"deal_id"` // nil = the server chooses
	MerchantID   string            `json:"merchant_id"`
	Title        string            `json:"title"`
	Category     string            `json:"category"`
	Currency     string            `json:"currency"`
	UnitPrice    *int64            `json:"unit_price"`
	Stock        int64             `json:"stock"`
	PerUserLimit *int64            `json:"per_user_limit"`
	StartsAt     optionalTime      `json:"starts_at"`
	EndsAt       optionalTime      `json:"ends_at"`
	ReserveTTL   *int64            `json:"reserve_ttl_s"`
	Group        *groupBody        `json:"group"`
	Rules        []string          `json:"rules"`
	OnRuleError  string            `json:"on_rule_error"`
	Attributes   map[string]string `json:"attributes"`
}

type groupBody struct {
	Size      int64  `json:"size"`
	Window    int64  `json:"window_s"`
	UnitPrice *int64 `json:"unit_price"`
}

// patchBody is the body of a request to change a deal.
type patchBody struct {
	Title        *string      `json:"title"`
	EndsAt       optionalTime `json:"ends_at"` // null = no end
	PerUserLimit *int64       `json:"per_user_limit"`
	Rules        *[]string    `json:"rules"`
	StockAdd     int64        `json:"stock_add"`
}

// dealReply is a deal as it is shown.
type dealReply struct {
	DealID       string            `json:"deal_id"`
	MerchantID   string            `json:"merchant_id"`
	Title        string            `json:"title"`
	Category     string            `json:"category"`
	Currency     string            `json:"currency"`
	UnitPrice    int64             `json:"unit_price"`
	Stock        int64             `json:"stock"`
	PerUserLimit uint32            `json:"per_user_limit,omitempty"`
	StartsAt     instant           `json:"starts_at"`
	EndsAt       *instant          `json:"ends_at,omitempty"`
	ReserveTTL   int64             `json:"reserve_ttl_s"`
	Group        *groupBody        `json:"group,omitempty"`
	Rules        []string          `json:"rules"`
	RulesOff     []string          `json:"rules_off,omitempty"` // of Rules, those that kept failing
	OnRuleError  string            `json:"on_rule_error"`
	Attributes   map[string]string `json:"attributes"`
	Status       string            `json:"status"`
	Available    int64             `json:"available"`
	Reserved     int64             `json:"reserved"`
	Sold         int64             `json:"sold"`
	ServerTime   instant           `json:"server_time"`
	Version      uint64            `json:"version"`
}

var rulePolicies = map[string]deal.RulePolicy{
	"": deal.RejectOnRuleError, "reject": deal.RejectOnRuleError, "skip": deal.SkipOnRuleError,
}

func newDealReply(v *deal.View, now int64) dealReply {
	s := v.Spec
	r := dealReply{
		DealID: s.ID, MerchantID: s.Merchant, Title: s.Title, Category: s.Category, Currency: string(s.Currency[:]),
		UnitPrice: s.UnitPrice, Stock: v.Stock, PerUserLimit: s.PerUserLimit, StartsAt: instant(s.StartsAt),
		ReserveTTL: s.ReserveTTL / 1000, Rules: s.Rules, RulesOff: v.Off, OnRuleError: "reject", Attributes: kvMap(s.Attributes),
		Status: v.Status(now).String(), Available: v.Available, Reserved: v.Reserved, Sold: v.Sold,
		ServerTime: instant(now), Version: v.Seq,
	}
	if s.EndsAt != 0 {
		r.EndsAt = (*instant)(&s.EndsAt)
	}
	if s.Group.Size != 0 {
		r.Group = &groupBody{Size: int64(s.Group.Size), Window: s.Group.Window / 1000, UnitPrice: &s.Group.UnitPrice}
	}
	if s.OnRuleError == deal.SkipOnRuleError {
		r.OnRuleError = "skip"
	}
	if r.Rules == nil {
		r.Rules = []string{}
	}
	return r
}

// spec turns the body into a deal's spec, with every fault that it finds.
func (b *dealBody) spec(now int64) (*deal.Spec, []deal.FieldError) {
	var faults []deal.FieldError
	s := &deal.Spec{
		ID: *b.DealID, Merchant: b.MerchantID, Title: b.Title, Category: b.Category, Stock: b.Stock,
		StartsAt: now, EndsAt: b.EndsAt.ms, ReserveTTL: deal.DefaultTTL, Rules: b.Rules, Attributes: sortedKVs(b.Attributes),
	}
	if len(b.Currency) == len(s.Currency) {
		copy(s.Currency[:], b.Currency)
	}
	if b.UnitPrice == nil {
		faults = append(faults, deal.FieldError{Field: "unit_price", Message: "is required"})
	} else {
		s.UnitPrice = *b.UnitPrice
	}
	if b.StartsAt.ms != 0 {
		s.StartsAt = b.StartsAt.ms
	}
	if b.ReserveTTL != nil {
		s.ReserveTTL = seconds(*b.ReserveTTL)
	}
	if b.PerUserLimit != nil {
		s.PerUserLimit = limit32(*b.PerUserLimit, "per_user_limit", &faults)
	}
	if g := b.Group; g != nil {
		s.Group = deal.GroupSpec{Size: limit32(g.Size, "group.size", &faults), Window: seconds(g.Window)}
		if g.UnitPrice == nil {
			faults = append(faults, deal.FieldError{Field: "group.unit_price", Message: "is required"})
		} else {
			s.Group.UnitPrice = *g.UnitPrice
		}
		if s.Group == (deal.GroupSpec{}) { // which would mean no groups
			faults = append(faults, deal.FieldError{Field: "group.size", Message: "is required"})
		}
	}
	policy, known := rulePolicies[b.OnRuleError]
	if s.OnRuleError = policy; !known {
		faults = append(faults, deal.FieldError{Field: "on_rule_error", Message: "must be reject or skip"})
	}
	return s, append(faults, s.Validate()...)
}

// seconds is a duration of a body in ms. What is out of every bound stays so.
func seconds(n int64) int64 {
	if n < 0 || n > deal.MaxDuration/1000 {
		return -1
	}
	return n * 1000
}

func limit32(n int64, field string, faults *[]deal.FieldError) uint32 {
	if n < 0 || n > math.MaxUint32 {
		*faults = append(*faults, deal.FieldError{Field: field, Message: fmt.Sprintf("must be 0 to %d", uint32(math.MaxUint32))})
		return 0
	}
	return uint32(n)
}

func (s *Server) createDeal(c *call) error {
	var body dealBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	if c.who.role == merchant {
		if body.MerchantID != "" && body.MerchantID != string(c.who.name) {
			return refuseField(forbidden, "merchant_id", "is not the merchant of this key")
		}
		body.MerchantID = string(c.who.name)
	}
	if body.DealID == nil {
		id := "d-" + strings.ToLower(rand.Text()[:12])
		body.DealID = &id
	}
	noteDeal(c.ctx, []byte(*body.DealID))
	spec, faults := body.spec(s.node.Now().Wall)
	if err := s.findRules(spec.Merchant, spec.Rules, &faults); err != nil {
		return err
	}
	if len(faults) > 0 {
		return refuseFields(dealInvalid, faults)
	}
	return s.changeDeal(c, own.ClassNew, spec.ID, fasthttp.StatusCreated, func(cmd *deal.Command) {
		cmd.Kind, cmd.Spec = deal.Create, spec
	})
}

// findRules adds to faults the rules that a merchant's deal cannot name.
func (s *Server) findRules(merchant string, rules []string, faults *[]deal.FieldError) error {
	for i, r := range rules {
		_, err := s.cfg.Rules.Rule(s.ctx, merchant, r)
		if errors.Is(err, plugins.ErrRuleNotFound) {
			*faults = append(*faults, deal.FieldError{Field: fmt.Sprintf("rules[%d]", i), Message: "is no rule of this merchant"})
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) getDeal(c *call) error {
	v, err := s.dealOf(c, c.params[0])
	if err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, newDealReply(&v, s.node.Now().Wall))
}

// dealOf returns the deal of an id as it stands in a path.
func (s *Server) dealOf(c *call, id []byte) (deal.View, error) {
	if !deal.ValidID(id) {
		return deal.View{}, &refusal{problem: dealNotFound}
	}
	return s.node.Deal(s.patience(c), string(id))
}

// ownDeal is dealOf for a caller who wants to change it.
func (s *Server) ownDeal(c *call, id []byte) (deal.View, error) {
	v, err := s.dealOf(c, id)
	if err == nil && !c.who.is(merchant, v.Spec.Merchant) {
		err = refuse(forbidden, "the deal belongs to another merchant")
	}
	return v, err
}

var dealStatuses = map[string]deal.Status{
	"": 0, "scheduled": deal.Scheduled, "live": deal.Live, "paused": deal.OnHold, "sold_out": deal.OutOfStock, "ended": deal.Ended,
}

func (s *Server) listDeals(c *call) error {
	status, known := dealStatuses[c.query("status")]
	if !known {
		return refuseField(invalidRequest, "status", "must be scheduled, live, paused, sold_out or ended")
	}
	merchantID, err1 := c.queryID("merchant_id")
	ruleOff, err2 := c.queryID("rule_off")
	limit, err3 := c.limit()
	after, err4 := c.cursorID()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if ruleOff != "" && merchantID == "" && c.who.role == merchant {
		merchantID = string(c.who.name) // another merchant's rule of this name is another rule
	}
	views, more, err := s.node.Deals(s.patience(c), actors.DealQuery{
		Merchant: merchantID, Category: c.query("category"), Status: status, RuleOff: ruleOff, After: after, Limit: limit,
	})
	if err != nil {
		return err
	}
	now := s.node.Now().Wall
	data := make([]dealReply, len(views))
	last := ""
	for i := range views {
		data[i] = newDealReply(&views[i], now)
		last = data[i].DealID
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, last))
}

func (s *Server) patchDeal(c *call) error {
	v, err := s.ownDeal(c, c.params[0])
	if err != nil {
		return err
	}
	var body patchBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	var faults []deal.FieldError
	patch := &deal.Patch{Title: body.Title, Rules: body.Rules, StockAdd: body.StockAdd}
	if body.EndsAt.given {
		patch.EndsAt = &body.EndsAt.ms
	}
	if body.PerUserLimit != nil {
		limit := limit32(*body.PerUserLimit, "per_user_limit", &faults)
		patch.PerUserLimit = &limit
	}
	faults = append(faults, patch.Validate()...)
	if body.Rules != nil {
		if err := s.findRules(v.Spec.Merchant, *body.Rules, &faults); err != nil {
			return err
		}
	}
	if len(faults) > 0 {
		return refuseFields(dealInvalid, faults)
	}
	if *patch == (deal.Patch{}) { // nothing changes, so nothing is written
		return c.reply(fasthttp.StatusOK, newDealReply(&v, s.node.Now().Wall))
	}
	return s.changeDeal(c, own.ClassNew, v.Spec.ID, fasthttp.StatusOK, func(cmd *deal.Command) {
		cmd.Kind, cmd.Patch = deal.Change, patch
	})
}

// steerDeal makes the handler of a command without a body.
func steerDeal(kind deal.CommandKind) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		v, err := s.ownDeal(c, c.params[0])
		if err != nil {
			return err
		}
		if err := c.readNothing(); err != nil {
			return err
		}
		return s.changeDeal(c, own.ClassPriority, v.Spec.ID, fasthttp.StatusOK, func(cmd *deal.Command) { cmd.Kind = kind })
	}
}

// changeDeal sends a command and answers with the deal after it.
func (s *Server) changeDeal(c *call, class own.Class, id string, status int, fill func(*deal.Command)) error {
	return s.ask(c, class, id, fill, func(r *actors.Request) error {
		return c.reply(status, newDealReply(&r.View, r.Reply.Event.At))
	})
}

// ask sends one command to a deal. fill must leave nothing in the command that
// points into the HTTP request; read is called with an answer that says yes,
// and must keep nothing of it.
func (s *Server) ask(c *call, class own.Class, dealID string, fill func(*deal.Command), read func(*actors.Request) error) error {
	r, err := s.acquire(c, class)
	if err != nil {
		return err
	}
	defer func() { s.vacate(r) }()
	r.Deal = []byte(dealID)
	fill(&r.Cmd)
	if err := s.node.CallWithin(s.patience(c), r); err != nil {
		if errors.Is(err, actors.ErrDeadline) {
			r = nil // it is no longer ours
		}
		return err
	}
	if r.Reply.Code != deal.OK {
		f := faultOfReply(&r.Reply)
		message := strings.Clone(f.message)
		no := refuse(f.problem, message)
		if f.field != nil {
			no = refuseField(f.problem, string(f.field), message)
		}
		return no
	}
	return read(r)
}
