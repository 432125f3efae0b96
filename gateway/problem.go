package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// problem is a kind of answer that says no. Its row in problems is all that
// a client learns of it by machine.
type problem uint8

const (
	noProblem problem = iota
	invalidJSON
	unknownField
	invalidRequest
	keyMissing
	keyInvalid
	transferEncodingRefused
	unauthenticated
	forbidden
	dealNotFound
	orderNotFound
	groupNotFound
	ruleNotFound
	versionNotFound
	notFound
	methodNotAllowed
	requestTimeout
	bodyTooLarge
	unsupportedMediaType
	headersTooLarge
	dealExists
	dealNotStarted
	dealEnded
	dealPaused
	soldOut
	userLimitExceeded
	orderStateConflict
	ruleStateConflict
	groupFull
	groupClosed
	idempotencyInFlight
	quantityInvalid
	dealInvalid
	ruleInvalid
	ruleRejected
	idempotencyMismatch
	rateLimited
	internalError
	overloaded
	unavailable
	draining
	deadlineExceeded
	problemCount
)

// problems is the one table of errors: everything that is answered with a
// status of 400 or more comes from here.
var problems = [problemCount]struct {
	status int
	code   string
	title  string
	advice string // the detail where nothing more is known; "" = the title says it all
}{
	invalidJSON:             {400, "invalid_json", "The body is not valid JSON", ""},
	unknownField:            {400, "unknown_field", "The body has a field that this request does not know", ""},
	invalidRequest:          {400, "invalid_request", "The request is not valid", ""},
	keyMissing:              {400, "idempotency_key_missing", "The header Idempotency-Key is required", "choose one for each order, and send it again with every repetition"},
	keyInvalid:              {400, "idempotency_key_invalid", "The Idempotency-Key is not valid", ""},
	transferEncodingRefused: {400, "transfer_encoding_refused", "Transfer-Encoding is not accepted in requests", ""},
	unauthenticated:         {401, "unauthenticated", "The caller is not known", "who calls is not known: send Authorization: Bearer with a key of this server that was not revoked, or with a shopper's token that has not expired"},
	forbidden:               {403, "forbidden", "The caller may not do this", ""},
	dealNotFound:            {404, "deal_not_found", "There is no such deal", ""},
	orderNotFound:           {404, "order_not_found", "There is no such order", ""},
	groupNotFound:           {404, "group_not_found", "There is no such group", ""},
	ruleNotFound:            {404, "rule_not_found", "There is no such rule", ""},
	versionNotFound:         {404, "version_not_found", "The rule has no such version", ""},
	notFound:                {404, "not_found", "There is nothing at this path", ""},
	methodNotAllowed:        {405, "method_not_allowed", "The path does not take this method", "the header Allow names those that it takes"},
	requestTimeout:          {408, "request_timeout", "The request did not arrive in time", "send each request whole within 10 s"},
	bodyTooLarge:            {413, "body_too_large", "The body is larger than this request may be", ""},
	unsupportedMediaType:    {415, "unsupported_media_type", "The body's media type is not accepted here", ""},
	headersTooLarge:         {431, "headers_too_large", "The request's headers are too large", "request line and headers together may have 8 KiB"},
	dealExists:              {409, "deal_exists", "A deal with this id exists", ""},
	dealNotStarted:          {409, "deal_not_started", "The deal has not started", ""},
	dealEnded:               {409, "deal_ended", "The deal has ended", ""},
	dealPaused:              {409, "deal_paused", "The deal is paused", ""},
	soldOut:                 {409, "sold_out", "The deal does not have this many units left", ""},
	userLimitExceeded:       {409, "user_limit_exceeded", "The user may not hold this many units", ""},
	orderStateConflict:      {409, "order_state_conflict", "The order's status does not allow this", ""},
	ruleStateConflict:       {409, "rule_state_conflict", "The rule's rollout does not allow this", ""},
	groupFull:               {409, "group_full", "The group is full", ""},
	groupClosed:             {409, "group_closed", "The group takes no more members", ""},
	idempotencyInFlight:     {409, "idempotency_in_flight", "An order with this Idempotency-Key is under way", ""},
	quantityInvalid:         {422, "quantity_invalid", "The quantity is not valid", ""},
	dealInvalid:             {422, "deal_invalid", "The deal is not valid", ""},
	ruleInvalid:             {422, "rule_invalid", "The module is not a rule", ""},
	ruleRejected:            {422, "rule_rejected", "A promotion rule refused the order", ""},
	idempotencyMismatch:     {422, "idempotency_mismatch", "The Idempotency-Key was used with another body", ""},
	rateLimited:             {429, "rate_limited", "The client sends too many requests", "wait for as long as Retry-After says"},
	internalError:           {500, "internal_error", "The server failed", "tell the operator the request_id; an order may be repeated with its Idempotency-Key"},
	overloaded:              {503, "overloaded", "The server has as much to do as it may take on", "wait for as long as Retry-After says; an order may be repeated with its Idempotency-Key"},
	unavailable:             {503, "unavailable", "The server cannot do this now", ""},
	draining:                {503, "draining", "The server is about to stop", "ask another node, or this one once it is back; an order may be repeated with its Idempotency-Key"},
	deadlineExceeded:        {504, "deadline_exceeded", "The outcome is unknown: try again with the same Idempotency-Key", ""},
}

// problemOfCode says how a decision of a deal is answered.
var problemOfCode = [...]problem{
	deal.DealExists:          dealExists,
	deal.DealNotFound:        dealNotFound,
	deal.DealNotStarted:      dealNotStarted,
	deal.DealEnded:           dealEnded,
	deal.DealPaused:          dealPaused,
	deal.DealInvalid:         dealInvalid,
	deal.SoldOut:             soldOut,
	deal.UserLimitExceeded:   userLimitExceeded,
	deal.QuantityInvalid:     quantityInvalid,
	deal.RuleRejected:        ruleRejected,
	deal.GroupNotOffered:     invalidRequest,
	deal.GroupNotFound:       groupNotFound,
	deal.GroupFull:           groupFull,
	deal.GroupClosed:         groupClosed,
	deal.OrderNotFound:       orderNotFound,
	deal.OrderStateConflict:  orderStateConflict,
	deal.IdempotencyMismatch: idempotencyMismatch,
	deal.OrderTooLarge:       invalidRequest,
}

// problemOfError says how an error of the node is answered.
func problemOfError(err error) problem {
	switch {
	case errors.Is(err, actors.ErrOverloaded):
		return overloaded
	case errors.Is(err, actors.ErrDraining):
		return draining
	case errors.Is(err, actors.ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		return deadlineExceeded
	case errors.Is(err, actors.ErrUnavailable), errors.Is(err, actors.ErrReadOnly), errors.Is(err, journal.ErrUnreachable),
		errors.Is(err, plugins.ErrNotCompiled):
		return unavailable
	case errors.Is(err, actors.ErrDealExists):
		return dealExists
	case errors.Is(err, actors.ErrDealNotFound):
		return dealNotFound
	case errors.Is(err, actors.ErrOrderNotFound):
		return orderNotFound
	case errors.Is(err, plugins.ErrRuleNotFound):
		return ruleNotFound
	case errors.Is(err, plugins.ErrVersionNotFound):
		return versionNotFound
	case errors.Is(err, plugins.ErrNothingToChange), errors.Is(err, journal.ErrConflict):
		return ruleStateConflict
	case errors.Is(err, plugins.ErrBadID), errors.Is(err, plugins.ErrBadFuelLimit), errors.Is(err, plugins.ErrBadRollout):
		return invalidRequest
	case errors.Is(err, plugins.ErrTooMany):
		return ruleInvalid
	case errors.Is(err, ErrKeyNotFound), errors.Is(err, actors.ErrNoMember):
		return notFound
	}
	return internalError
}

// fault is one field, or one place in a module, that is wrong.
type fault struct {
	field   string
	message string
	section string // of a module, "" = not about one
	offset  int64  // in the module
}

// refusal is a problem with what is known of this case of it. It is an error,
// so that handlers off the order path can return it.
type refusal struct {
	problem problem
	detail  string // "" = the one fault, or else the title, says it all
	faults  []fault
}

func (r *refusal) Error() string {
	switch {
	case r.detail != "":
		return r.detail
	case len(r.faults) == 1:
		return r.faults[0].field + " " + r.faults[0].message
	default:
		return problems[r.problem].title
	}
}

// refuse makes a refusal without faults.
func refuse(p problem, detail string) *refusal { return &refusal{problem: p, detail: detail} }

// refuseField makes a refusal about one field.
func refuseField(p problem, field, message string) *refusal {
	return &refusal{problem: p, faults: []fault{{field: field, message: message}}}
}

// refuseFields makes a refusal of what the domain's own validation found.
func refuseFields(p problem, errs []deal.FieldError) *refusal {
	r := &refusal{problem: p}
	if len(errs) > 1 {
		r.detail = "some fields are not valid"
	}
	for _, e := range errs {
		r.faults = append(r.faults, fault{field: e.Field, message: e.Message})
	}
	return r
}

// asRefusal turns whatever a handler returned into what is answered.
func asRefusal(err error) *refusal {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	no := &refusal{problem: problemOfError(err)}
	if module := (*plugins.InvalidError)(nil); errors.As(err, &module) {
		no.problem = ruleInvalid
		for _, f := range module.Faults {
			no.faults = append(no.faults, fault{field: f.Section, message: f.Reason, section: f.Section, offset: int64(f.Offset)})
		}
	}
	switch {
	case no.problem == invalidRequest, no.problem == ruleStateConflict, no.problem == ruleNotFound, no.problem == versionNotFound,
		errors.Is(err, plugins.ErrTooMany):
		no.detail = err.Error()
	}
	return no
}

var (
	headerRetryAfter = []byte("Retry-After")
	problemMediaType = []byte("application/problem+json")
	// Seconds that Retry-After may name. The spread keeps clients that were
	// turned away together from coming back together.
	retryAfterValues = [...]string{"1", "2", "3", "4"}
)

// writeProblem makes the response say p. The request id must be set on the
// response. It allocates nothing.
func writeProblem(resp *fasthttp.Response, p problem, detail string, faults []fault) {
	row := &problems[p]
	resp.SetStatusCode(row.status)
	resp.Header.SetContentTypeBytes(problemMediaType)
	if row.status == fasthttp.StatusServiceUnavailable || p == rateLimited && len(resp.Header.PeekCanonical(headerRetryAfter)) == 0 {
		resp.Header.SetCanonical(headerRetryAfter, s2b(retryAfterValues[rand.IntN(len(retryAfterValues))]))
	}
	if p == unauthenticated {
		resp.Header.Set("WWW-Authenticate", `Bearer realm="doorbuster"`)
	}
	id := resp.Header.PeekCanonical(headerRequestID)
	resp.SwapBody(appendProblem(resp.SwapBody(nil)[:0], p, detail, id, faults))
}

func appendProblem(b []byte, p problem, detail string, requestID []byte, faults []fault) []byte {
	row := &problems[p]
	b = append(b, `{"type":"https://doorbuster.dev/problems/`...)
	b = append(b, row.code...)
	b = append(b, `","title":"`...)
	b = append(b, row.title...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(row.status), 10)
	b = append(b, `,"code":"`...)
	b = append(b, row.code...)
	b = append(b, `","detail":"`...)
	switch {
	case detail != "":
		b = appendText(b, detail)
	case len(faults) == 1:
		b = appendText(b, faults[0].field)
		if faults[0].section != "" {
			b = append(b, ':')
		}
		b = appendText(append(b, ' '), faults[0].message)
	case row.advice != "":
		b = append(b, row.advice...)
	default:
		b = append(b, row.title...)
	}
	b = append(b, `","request_id":`...)
	b = appendString(b, requestID)
	if len(faults) > 0 {
		b = append(b, `,"errors":[`...)
		for i := range faults {
			if i > 0 {
				b = append(b, ',')
			}
			b = faults[i].append(b)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func (f *fault) append(b []byte) []byte {
	b = append(b, `{"field":`...)
	b = appendString(b, f.field)
	b = append(b, `,"message":`...)
	b = appendString(b, f.message)
	if f.section != "" {
		b = append(b, `,"section":`...)
		b = appendString(b, f.section)
		b = append(b, `,"offset":`...)
		b = strconv.AppendInt(b, f.offset, 10)
		b = append(b, `,"reason":`...)
		b = appendString(b, f.message)
	}
	return append(b, '}')
}
