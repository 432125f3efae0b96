package gateway

import (
	"context"
	"errors"
	"math"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// rolloutReply is which versions of a rule price orders, as it is shown.
type rolloutReply struct {
	Stable    uint32       `json:"stable"`
	Previous  uint32       `json:"previous,omitempty"`
	Pinned    bool         `json:"pinned"`
	Candidate uint32       `json:"candidate,omitempty"`
	Mode      plugins.Mode `json:"mode"`
	Percent   int          `json:"percent,omitempty"`
	Bounds    *boundsReply `json:"bounds,omitempty"`
}

type boundsReply struct {
	FaultMax    int `json:"fault_percent_max"`
	RejectMax   int `json:"reject_percent_max"`
	DiscountMin int `json:"discount_percent_min"`
	DiscountMax int `json:"discount_percent_max"`
}

func newRolloutReply(r *plugins.Rollout) rolloutReply {
	reply := rolloutReply{Stable: r.Stable, Previous: r.Previous, Pinned: r.Pinned, Mode: plugins.ModeStable}
	if r.Candidate != 0 {
		reply.Candidate, reply.Mode, reply.Percent = r.Candidate, r.Mode, r.Percent
		reply.Bounds = (*boundsReply)(&r.Bounds)
	}
	return reply
}

// rolloutBody is the body of a request to set a rollout.
type rolloutBody struct {
	MerchantID string       `json:"merchant_id"`
	Reason     string       `json:"reason"`
	Stable     uint32       `json:"stable"`
	Candidate  uint32       `json:"candidate"`
	Mode       plugins.Mode `json:"mode"`
	Percent    int          `json:"percent"`
	Bounds     *struct {
		FaultMax    *int `json:"fault_percent_max"`
		RejectMax   *int `json:"reject_percent_max"`
		DiscountMin *int `json:"discount_percent_min"`
		DiscountMax *int `json:"discount_percent_max"`
	} `json:"bounds"`
}

// bounds are those that the body names, and the default ones beside them.
func (b *rolloutBody) bounds() *plugins.Bounds {
	if b.Bounds == nil {
		return nil
	}
	bounds := plugins.DefaultBounds
	for _, f := range []struct{ named, to *int }{
		{b.Bounds.FaultMax, &bounds.FaultMax},
		{b.Bounds.RejectMax, &bounds.RejectMax},
		{b.Bounds.DiscountMin, &bounds.DiscountMin},
		{b.Bounds.DiscountMax, &bounds.DiscountMax},
	} {
		if f.named != nil {
			*f.to = *f.named
		}
	}
	return &bounds
}

func (s *Server) setRollout(c *call) error {
	var body rolloutBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	id, err1 := c.ruleID()
	owner, err2 := c.writerOf(body.MerchantID)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if body.Stable == 0 {
		return refuseField(invalidRequest, "stable", "is required: the version that prices orders")
	}
	r, err := s.cfg.Rules.SetRollout(s.ctx, c.by(), owner, id, plugins.Change{
		Stable: body.Stable, Candidate: body.Candidate, Mode: body.Mode, Percent: body.Percent, Bounds: body.bounds(), Why: body.Reason,
	})
	if err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, newRolloutReply(&r))
}

// merchantBody is a body that may say whose rule it is, and why it is changed.
type merchantBody struct {
	MerchantID string `json:"merchant_id"`
	Reason     string `json:"reason"`
}

// steerRule makes the handler of a step of a rule's rollout.
func steerRule(step func(r *plugins.Registry, ctx context.Context, by, why, merchant, rule string) (plugins.Rollout, error)) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		var body merchantBody
		if err := c.readOptionalJSON(&body); err != nil {
			return err
		}
		id, err1 := c.ruleID()
		owner, err2 := c.writerOf(body.MerchantID)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		r, err := step(s.cfg.Rules, s.ctx, c.by(), body.Reason, owner, id)
		if err != nil {
			return err
		}
		return c.reply(fasthttp.StatusOK, newRolloutReply(&r))
	}
}

// comparisonReply is a candidate beside the stable version, in figures since the
// rollout began or the node started.
type comparisonReply struct {
	Stable      armReply      `json:"stable"`
	Candidate   armReply      `json:"candidate"`
	Compared    uint64        `json:"compared"`
	Different   uint64        `json:"different"`
	Missed      uint64        `json:"missed"`
	Differences []shadowReply `json:"differences"`
}

type armReply struct {
	Orders          uint64  `json:"orders"`
	Faults          uint64  `json:"faults"`
	Rejections      uint64  `json:"rejections"`
	DiscountPercent float64 `json:"discount_percent"`
}

func newArmReply(a *plugins.Arm) armReply {
	return armReply{a.Orders, a.Faults, a.Rejections, float64(a.DiscountPoints) / 100}
}

// shadowReply is an order that the two versions answer differently.
type shadowReply struct {
	At        instant     `json:"at"`
	DealID    string      `json:"deal_id"`
	UserID    string      `json:"user_id"`
	Digest    string      `json:"input_digest"`
	Stable    answerReply `json:"stable"`
	Candidate answerReply `json:"candidate"`
}

type answerReply struct {
	Outcome  string `json:"outcome"`
	Fault    string `json:"fault,omitempty"`
	Discount int64  `json:"discount"`
	Final    bool   `json:"final"`
}

func newAnswerReply(a *plugins.Answer) answerReply {
	if a.Fault != abi.FaultNone {
		return answerReply{Outcome: "fault", Fault: a.Fault.String()}
	}
	return answerReply{Outcome: a.Outcome.String(), Discount: a.Discount, Final: a.Final}
}

func (s *Server) getRollout(c *call) error {
	id, err1 := c.ruleID()
	owner, err2 := c.merchantOf("")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r, err1 := s.cfg.Rules.Rule(s.ctx, owner, id)
	figures, err2 := s.cfg.Rules.Compare(owner, id)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	reply := struct {
		rolloutReply
		Comparison *comparisonReply `json:"comparison,omitempty"`
	}{rolloutReply: newRolloutReply(&r.Rollout)}
	if figures != nil {
		reply.Comparison = newComparisonReply(figures)
	}
	return c.reply(fasthttp.StatusOK, reply)
}

func newComparisonReply(f *plugins.Comparison) *comparisonReply {
	reply := &comparisonReply{
		Stable: newArmReply(&f.Stable), Candidate: newArmReply(&f.Candidate),
		Compared: f.Compared, Different: f.Different, Missed: f.Missed, Differences: []shadowReply{},
	}
	for i := range f.Differences {
		d := &f.Differences[i]
		reply.Differences = append(reply.Differences, shadowReply{
			instant(d.At), d.Deal, d.User, digestText(d.Digest), newAnswerReply(&d.Stable), newAnswerReply(&d.Candidate),
		})
	}
	return reply
}

// ruleEventReply is a change of a rule.
type ruleEventReply struct {
	Seq     uint64  `json:"seq"`
	At      instant `json:"at"`
	By      string  `json:"by"`
	Action  string  `json:"action"`
	From    uint32  `json:"from,omitempty"`
	To      uint32  `json:"to"`
	Version uint32  `json:"version,omitempty"`
	Percent int     `json:"percent,omitempty"`
	Why     string  `json:"why,omitempty"`
}

// listRuleEvents lists the changes of a rule, oldest first.
func (s *Server) listRuleEvents(c *call) error {
	id, err1 := c.ruleID()
	owner, err2 := c.merchantOf("")
	limit, err3 := c.limit()
	cursor, err4 := c.cursor()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	after := uint64(0)
	if cursor != "" {
		var err error
		if after, err = strconv.ParseUint(cursor, 10, 64); err != nil || after > math.MaxInt64 {
			return refuseField(invalidRequest, "cursor", "is not one of this list")
		}
	}
	data, more := []ruleEventReply{}, false
	err := s.cfg.Rules.Audits(s.ctx, owner, id, after, func(a plugins.Audit) error {
		if more = len(data) == limit; more {
			return journal.ErrStop
		}
		data = append(data, ruleEventReply{a.Seq, instant(a.At), a.By, a.Action, a.From, a.To, a.Version, a.Percent, a.Why})
		return nil
	})
	if err != nil {
		return err
	}
	next := ""
	if more {
		next = strconv.FormatUint(data[len(data)-1].Seq, 10)
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, next))
}
