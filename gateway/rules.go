package gateway

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sample"
)

// versionReply is a version of a rule as it is shown.
type versionReply struct {
	RuleID    string   `json:"rule_id"`
	Version   uint32   `json:"version"`
	SHA256    string   `json:"sha256"`
	Size      int      `json:"size"`
	ABI       int      `json:"abi"`
	FuelLimit uint64   `json:"fuel_limit"`
	Warnings  []string `json:"warnings"`
	CreatedAt instant  `json:"created_at"`
}

func newVersionReply(v *plugins.Version) versionReply {
	return versionReply{
		RuleID: v.RuleID, Version: v.Version, SHA256: v.SHA256, Size: v.Size, ABI: abi.Version,
		FuelLimit: v.FuelLimit, Warnings: []string{}, CreatedAt: instant(v.CreatedAt),
	}
}

// ruleReply is a rule as it is shown.
type ruleReply struct {
	RuleID     string       `json:"rule_id"`
	MerchantID string       `json:"merchant_id,omitempty"` // absent: a house rule
	Latest     uint32       `json:"latest"`
	Rollout    rolloutReply `json:"rollout"`
	// NotRunnable says why a version that prices orders does not run.
	NotRunnable string `json:"not_runnable,omitempty"`
}

func newRuleReply(r *plugins.Rule) ruleReply {
	return ruleReply{RuleID: r.RuleID, MerchantID: r.Merchant, Latest: r.Latest, Rollout: newRolloutReply(&r.Rollout), NotRunnable: r.NotRunnable}
}

// merchantOf says whose rules a request is about: a merchant's own, or those
// that an operator names in the query or, where it is JSON, in the body. ""
// stands for the house.
func (c *call) merchantOf(inBody string) (string, error) {
	id, err := c.queryID("merchant_id")
	if err != nil {
		return "", err
	}
	if id == "" {
		id = inBody
	}
	if c.who.role == merchant {
		if id != "" && !c.who.is(merchant, id) {
			return "", refuseField(forbidden, "merchant_id", "is not the merchant of this key")
		}
		return string(c.who.name), nil
	}
	return id, nil
}

// writerOf is merchantOf for a change, which the house does not take.
func (c *call) writerOf(inBody string) (string, error) {
	id, err := c.merchantOf(inBody)
	if err == nil && !deal.ValidID(id) {
		err = refuseField(invalidRequest, "merchant_id", "is required, 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return id, err
}

// ruleID returns the rule that the path names.
func (c *call) ruleID() (string, error) {
	if !deal.ValidID(c.params[0]) {
		return "", &refusal{problem: ruleNotFound}
	}
	return string(c.params[0]), nil
}

// newRuleID is ruleID for a rule that need not exist.
func (c *call) newRuleID() (string, error) {
	id, err := c.ruleID()
	if err != nil {
		err = refuseField(invalidRequest, "id", wantID)
	}
	return id, err
}

// version returns the version that the path names.
func (c *call) version() (uint32, error) {
	n, err := strconv.ParseUint(string(c.params[1]), 10, 32)
	if err != nil || n == 0 {
		return 0, &refusal{problem: versionNotFound}
	}
	return uint32(n), nil
}

// by names the caller in the audit.
func (c *call) by() string { return c.who.role.String() + ":" + string(c.who.name) }

func isWasm(contentType []byte) bool {
	name, _, _ := bytes.Cut(contentType, []byte(";"))
	return bytes.EqualFold(bytes.TrimSpace(name), []byte("application/wasm"))
}

// module reads an uploaded module: by itself, or with what it comes with in a form. bundle is nil without one.
func (c *call) module() (wasm []byte, bundle *plugins.Bundle, err error) {
	contentType := c.ctx.Request.Header.ContentType()
	if isWasm(contentType) {
		wasm, err = c.body(isWasm, "", abi.ModuleBytesMax)
		return wasm, nil, err
	}
	kind, parameters, err := mime.ParseMediaType(string(contentType))
	if err != nil || kind != "multipart/form-data" {
		return nil, nil, refuse(unsupportedMediaType, "the body must be application/wasm, or multipart/form-data with the module")
	}
	form, err := c.body(func([]byte) bool { return true }, "", abi.ModuleBytesMax)
	if err != nil {
		return nil, nil, err
	}
	return readModuleForm(form, parameters["boundary"])
}

// readModuleForm takes a form apart. Each part may come once.
func readModuleForm(form []byte, boundary string) (wasm []byte, bundle *plugins.Bundle, err error) {
	parts := map[string][]byte{"module": nil, "provider": nil, "configuration": nil, "input_query": nil, "export": nil, "discount_classes": nil}
	for r := multipart.NewReader(bytes.NewReader(form), boundary); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, refuse(invalidRequest, "the form cannot be read: "+err.Error())
		}
		had, known := parts[part.FormName()]
		if !known || had != nil {
			return nil, nil, refuseField(invalidRequest, part.FormName(), "is no part of this form, or comes twice")
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, refuse(invalidRequest, "the form cannot be read: "+err.Error())
		}
		parts[part.FormName()] = append([]byte{}, content...)
	}
	if len(parts["module"]) == 0 {
		return nil, nil, refuseField(invalidRequest, "module", "is required: the .wasm")
	}
	bundle = &plugins.Bundle{
		Provider: parts["provider"], Configuration: parts["configuration"],
		Query: string(parts["input_query"]), Export: string(parts["export"]),
	}
	if classes := strings.TrimSpace(string(parts["discount_classes"])); classes != "" {
		for class := range strings.SplitSeq(classes, ",") {
			bundle.Classes = append(bundle.Classes, strings.TrimSpace(class))
		}
	}
	return parts["module"], bundle, nil
}

// uploadRule takes a module. The caller is known before the module is read,
// and only a few are read at once: each is megabytes.
func (s *Server) uploadRule(c *call) error {
	id, err1 := c.newRuleID()
	owner, err2 := c.writerOf("")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	fuel := uint64(0)
	if text := c.query("fuel_limit"); text != "" {
		var err error
		if fuel, err = strconv.ParseUint(text, 10, 64); err != nil || fuel == 0 {
			return refuseField(invalidRequest, "fuel_limit", "must be a whole number above 0")
		}
	}
	if !s.uploads.enter(s.ctx, owner) {
		return refuse(overloaded, "as many modules as may be are being uploaded")
	}
	defer s.uploads.leave(owner)
	wasm, bundle, err := c.module()
	if err != nil {
		return err
	}
	leavePoller()
	v, created, err := s.cfg.Rules.Upload(s.ctx, plugins.Upload{Merchant: owner, RuleID: id, Wasm: wasm, Bundle: bundle, FuelLimit: fuel, By: c.by()})
	if err != nil {
		return err
	}
	status := fasthttp.StatusOK
	if created {
		status = fasthttp.StatusCreated
	}
	answer := newVersionReply(&v)
	if owner != "" && s.cfg.Rules.Exists("", id) {
		answer.Warnings = append(answer.Warnings, "a house rule is called "+id+" too: deals of this merchant that name it run this one")
	}
	return c.reply(status, answer)
}

func (s *Server) listRules(c *call) error {
	owner, err1 := c.merchantOf("")
	limit, err2 := c.limit()
	after, err3 := c.cursorID()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	rules := s.cfg.Rules.Rules(owner)
	if i := slices.IndexFunc(rules, func(r plugins.Rule) bool { return r.RuleID > after }); i >= 0 {
		rules = rules[i:]
	} else {
		rules = nil
	}
	more, next := len(rules) > limit, ""
	rules = rules[:min(limit, len(rules))]
	data := make([]ruleReply, len(rules))
	for i := range rules {
		data[i] = newRuleReply(&rules[i])
		next = data[i].RuleID
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, next))
}

// faultingReply is a rule that has faulted, and whose it is.
type faultingReply struct {
	RuleID      string            `json:"rule_id"`
	MerchantID  string            `json:"merchant_id,omitempty"` // absent: a house rule
	Stable      uint32            `json:"stable"`
	Calls       uint64            `json:"calls"`
	Faults      map[string]uint64 `json:"faults"`
	LastFaultAt instant           `json:"last_fault_at"`
}

// faultingRules lists the rules of all merchants that have faulted on this node since its
// start, the last to fault first.
func (s *Server) faultingRules(c *call) error {
	limit, err1 := c.limit()
	after, err2 := c.cursor()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	rules := map[string]faultingReply{} // by their place in the list
	s.cfg.Rules.Stats(func(r plugins.RuleStats) {
		place := fmt.Sprintf("%x %s/%s", math.MaxInt64-r.FaultAt, r.Merchant, r.RuleID)
		if len(r.Faults) == 0 || place <= after {
			return
		}
		faults := map[string]uint64{}
		for fault, n := range r.Faults {
			faults[fault.String()] = n
		}
		rules[place] = faultingReply{r.RuleID, r.Merchant, r.Stable, r.Calls, faults, instant(r.FaultAt)}
	})
	places := slices.Sorted(maps.Keys(rules))
	more, next := len(places) > limit, ""
	var data []faultingReply
	for _, next = range places[:min(limit, len(places))] {
		data = append(data, rules[next])
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, next))
}

func (s *Server) getRule(c *call) error {
	id, err1 := c.ruleID()
	owner, err2 := c.merchantOf("")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r, err := s.cfg.Rules.Rule(s.ctx, owner, id)
	if err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, newRuleReply(&r))
}

func (s *Server) getVersion(c *call) error {
	id, err1 := c.ruleID()
	n, err2 := c.version()
	owner, err3 := c.merchantOf("")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	v, err := s.cfg.Rules.Version(s.ctx, owner, id, n)
	if err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, newVersionReply(&v))
}

func (s *Server) getWasm(c *call) error {
	id, err1 := c.ruleID()
	n, err2 := c.version()
	owner, err3 := c.merchantOf("")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	wasm, err := s.cfg.Rules.Wasm(s.ctx, owner, id, n)
	if err != nil {
		return err
	}
	c.ctx.Response.Header.SetContentType("application/wasm")
	c.ctx.Response.SetBodyRaw(wasm)
	return nil
}

// evaluateBody is a sample input.
type evaluateBody struct {
	MerchantID string `json:"merchant_id"`
	sample.Order
}

type evaluateReply struct {
	Outcome     string   `json:"outcome"`
	Discount    int64    `json:"discount"`
	Label       string   `json:"label"`
	Reason      string   `json:"reason"`
	Final       bool     `json:"final"`
	Fault       string   `json:"fault,omitempty"`
	FaultDetail string   `json:"fault_detail,omitempty"`
	Fuel        uint64   `json:"fuel"`
	Logs        []string `json:"logs"`
	LogsDropped int      `json:"logs_dropped,omitempty"`
	Nanoseconds int64    `json:"ns"`
	Digest      string   `json:"input_digest"`
}

// input turns the body into what a rule is told.
func (b *evaluateBody) input(now int64) (*abi.Input, error) {
	if b.Now == 0 {
		b.Now = sample.Instant(now)
	}
	in, err := b.Input()
	if field := new(sample.FieldError); errors.As(err, &field) {
		if field.Field == "order.quantity" {
			return nil, refuseField(quantityInvalid, field.Field, wantQuantity)
		}
		return nil, refuseField(invalidRequest, field.Field, field.Message)
	}
	if err != nil {
		return nil, refuse(invalidRequest, err.Error())
	}
	return in, nil
}

func (s *Server) evaluateRule(c *call) error {
	var body evaluateBody
	if err := c.readOptionalJSON(&body); err != nil {
		return err
	}
	id, err1 := c.ruleID()
	n, err2 := c.version()
	owner, err3 := c.merchantOf(body.MerchantID)
	in, err4 := body.input(s.node.Now().Wall)
	err := errors.Join(err1, err2, err3, err4)
	if err != nil {
		return err
	}
	var e *plugins.Evaluation
	err = s.try(c, func() (err error) {
		e, err = s.cfg.Rules.EvaluateVersion(s.ctx, owner, id, n, in)
		return err
	})
	if err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, newEvaluateReply(e))
}

func newEvaluateReply(e *plugins.Evaluation) evaluateReply {
	r := evaluateReply{
		Outcome: e.Outcome.String(), Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Final: e.Final,
		FaultDetail: e.FaultDetail, Fuel: e.Fuel, Logs: logLines(e.Logs), LogsDropped: e.LogsDropped,
		Nanoseconds: e.Nanoseconds, Digest: digestText(e.Digest),
	}
	if e.Fault != abi.FaultNone {
		r.Outcome, r.Fault = "fault", e.Fault.String()
	}
	return r
}

// logLines splits what a module logged. It may be any bytes.
func logLines(logs []byte) []string {
	lines := []string{}
	for line := range strings.Lines(strings.ToValidUTF8(string(logs), "\ufffd")) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

func digestText(digest uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(digest >> (56 - 8*i) & math.MaxUint8)
	}
	return hex.EncodeToString(b[:])
}
