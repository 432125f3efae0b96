package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Nodes talk in messages of their own:
//
//	request   op (1)        version (1)  fields
//	answer    outcome (1)   version (1)  fields, if the outcome is answered
//
// Numbers are varints, texts have their length in front, all in the order of the
// functions below. A version only ever adds fields behind those of the one before, so
// two versions that follow each other understand one another: what a reader does not
// know stands at the end, and it leaves it. A change that is more than that takes a new
// op; a node that does not know an op says so with outcomeUnsupported. The formats of
// events and views are the journal's and hold here too.
const messageVersion = 1

// op is what one node asks of another. The numbers are never used again.
type op byte

const (
	opCommand op = 1 // a command for a deal that the receiver owns
	opView    op = 2 // the committed state of a deal
	opWatch   op = 3 // the same, once it has changed
	opRelease op = 4 // have no activation of these deals any more
	opWake    op = 5 // take these deals up: they were handed over
	opCatchUp op = 6 // bring the lists up to date
	opName    op = 7 // the id of the deal that the ids of orders call so
	opStatus  op = 8 // how the node is
	opDrain   op = 9 // leave the cluster and end
)

// outcome begins every answer.
type outcome byte

const (
	outcomeAnswered    outcome = 1
	outcomeMoved       outcome = 2 // not begun: the deal is, or will be, with another node
	outcomeOverloaded  outcome = 3
	outcomeUnavailable outcome = 4
	outcomeReadOnly    outcome = 5
	outcomeExpired     outcome = 6
	outcomeNotFound    outcome = 7
	outcomeNameTaken   outcome = 8
	outcomeUnsupported outcome = 9
	outcomeMalformed   outcome = 10
)

// errPeer says that another node did not understand this one.
var errPeer = errors.New("actors: a node of another version")

// outcomeErrors says what an outcome is to the caller of the node that asked.
var outcomeErrors = [...]error{
	outcomeAnswered: nil, outcomeMoved: errAgain, outcomeOverloaded: ErrOverloaded, outcomeUnavailable: ErrUnavailable,
	outcomeReadOnly: ErrReadOnly, outcomeExpired: ErrDeadline, outcomeNotFound: ErrDealNotFound, outcomeNameTaken: ErrDealExists,
	outcomeUnsupported: fmt.Errorf("%w: %w does not know this message", ErrUnavailable, errPeer),
	outcomeMalformed:   fmt.Errorf("%w: %w cannot read this message", ErrUnavailable, errPeer),
}

// outcomeOf is the way back.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outcomeAnswered
	case errors.Is(err, errAgain), errors.Is(err, ErrDraining):
		return outcomeMoved
	case errors.Is(err, ErrOverloaded):
		return outcomeOverloaded
	case errors.Is(err, ErrReadOnly):
		return outcomeReadOnly
	case errors.Is(err, ErrDeadline):
		return outcomeExpired
	case errors.Is(err, ErrDealNotFound):
		return outcomeNotFound
	case errors.Is(err, ErrDealExists):
		return outcomeNameTaken
	}
	return outcomeUnavailable
}

// Bounds of what a message may hold.
const (
	detailMax   = 1 << 10 // bytes of Reply.Detail
	recordMax   = 64 << 10
	dealsMax    = 1024 // of one message
	changesMax  = 64   // of groups: what a deal remembers
	messageRoom = 2    // op or outcome, and version
)

var errMessage = errors.New("actors: malformed message")

func appendOp(dst []byte, o op) []byte           { return append(dst, byte(o), messageVersion) }
func appendOutcome(dst []byte, o outcome) []byte { return append(dst, byte(o), messageVersion) }

// answerFields returns an answer's fields, or what its outcome is to the caller.
func answerFields(body []byte) ([]byte, error) {
	if len(body) < messageRoom || body[0] == 0 || body[1] == 0 {
		return nil, fmt.Errorf("%w: an answer of %d bytes", errMessage, len(body))
	}
	if int(body[0]) >= len(outcomeErrors) {
		return nil, fmt.Errorf("%w: %w answered with outcome %d", ErrUnavailable, errPeer, body[0])
	}
	return body[messageRoom:], outcomeErrors[body[0]]
}

// fieldReader takes fields off the front of a message. The first that is not there, or
// out of bounds, makes it bad, and every later one is zero.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) fail() { r.bad, r.b = true, nil }

func (r *fieldReader) end() error {
	if r.bad {
		return errMessage
	}
	return nil
}

func (r *fieldReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *fieldReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) text(most int) []byte {
	n := r.uint()
	if n > uint64(most) || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// laterCount is count of a field that a node of an earlier version leaves out.
func (r *fieldReader) laterCount(most int) int {
	if len(r.b) == 0 {
		return 0
	}
	return r.count(most)
}

func (r *fieldReader) count(most int) int {
	n := r.uint()
	if n > uint64(most) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *fieldReader) id() []byte {
	id := r.text(deal.MaxIDLen)
	if !r.bad && !deal.ValidID(id) {
		r.fail()
	}
	return id
}

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendCommand encodes r's command, but for its stamp: the owner's clock tells a
// deal's time.
func appendCommand(dst []byte, r *Request) []byte {
	c := &r.Cmd
	dst = append(appendOp(dst, opCommand), byte(c.Kind), byte(c.GroupMode))
	dst = appendText(dst, r.Deal)
	dst = appendText(dst, c.User)
	dst = appendText(dst, c.Key)
	dst = binary.AppendVarint(dst, c.Quantity)
	dst = binary.AppendUvarint(dst, c.Group)
	dst = binary.AppendUvarint(dst, c.Order)
	dst = appendText(dst, c.Ref)
	dst = binary.AppendUvarint(dst, uint64(len(c.Codes)))
	for _, code := range c.Codes {
		dst = appendText(dst, code)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Attributes)))
	for _, kv := range c.Attributes {
		dst = appendText(appendText(dst, kv.Key), kv.Value)
	}
	// A merchant's terms go as the event that they would make.
	var terms []byte
	switch c.Kind {
	case deal.Create:
		terms = (&deal.Event{Kind: deal.DealCreated, Spec: c.Spec}).Append(nil)
	case deal.Change:
		terms = (&deal.Event{Kind: deal.DealChanged, Patch: c.Patch}).Append(nil)
	default:
	}
	return appendText(dst, terms)
}

// readCommand fills in a command from what follows op and version. It keeps slices of b.
func readCommand(b []byte, r *Request) error {
	f, c := fieldReader{b: b}, &r.Cmd
	c.Kind, c.GroupMode = deal.CommandKind(f.byte()), deal.GroupMode(f.byte())
	r.Deal = f.id()
	c.User, c.Key = f.text(deal.MaxIDLen), f.text(deal.MaxIDLen)
	c.Quantity, c.Group, c.Order = f.int(), f.uint(), f.uint()
	c.Ref = f.text(deal.MaxReferenceLen)
	for range f.count(deal.MaxCodes) {
		c.Codes = append(c.Codes, f.text(deal.MaxTextLen))
	}
	for range f.count(deal.MaxAttributes) {
		c.Attributes = append(c.Attributes, abi.KV{Key: f.text(deal.MaxTextLen), Value: f.text(deal.MaxTextLen)})
	}
	terms := f.text(recordMax)
	if c.Kind < deal.Place || c.Kind > deal.LookupGroup || c.GroupMode > deal.JoinGroup {
		f.fail()
	}
	if err := f.end(); err != nil || c.Kind != deal.Create && c.Kind != deal.Change {
		return err
	}
	var e deal.Event
	if err := e.Decode(terms); err != nil {
		return err
	}
	c.Spec, c.Patch = e.Spec, e.Patch
	if c.Kind == deal.Create && (c.Spec == nil || c.Spec.ID != string(r.Deal)) || c.Kind == deal.Change && c.Patch == nil {
		return errMessage
	}
	return nil
}

// Flags of a reply.
const (
	replyReplayed = 1 << iota
	replyEvent    // an event follows
	replyPrice    // it is the price of what did not happen: a quote, or a rule's refusal
)

// appendReply encodes the answer to r's command, and the deal right after it.
func appendReply(dst []byte, r *Request) []byte {
	p := &r.Reply
	dst = appendOutcome(dst, outcomeAnswered)
	at := len(dst)
	dst = append(dst, 0, byte(p.Code), byte(p.Status))
	dst = appendText(dst, p.Detail[:min(len(p.Detail), detailMax)])
	for _, n := range [...]uint64{uint64(p.Event.At), p.Order, p.Moved} {
		dst = binary.AppendUvarint(dst, n)
	}
	dst = appendGroup(dst, &p.Group)
	if p.Replayed {
		dst[at] |= replyReplayed
	}
	priced := p.Event.Kind == 0 && (r.Cmd.Kind == deal.Quote && p.Code == deal.OK || p.Code == deal.RuleRejected)
	if priced || p.Event.Kind != 0 {
		dst[at] |= replyEvent
		kind := p.Event.Kind
		if priced {
			dst[at] |= replyPrice
			p.Event.Kind = deal.OrderPlaced
		}
		r.wire = p.Event.Append(r.wire[:0])
		p.Event.Kind = kind
		dst = appendText(dst, r.wire)
	}
	return appendView(dst, &r.View)
}

// readReply fills in r from an answer's fields. It keeps slices of b.
func readReply(b []byte, r *Request, s *specs) error {
	f, p := fieldReader{b: b}, &r.Reply
	p.Reset()
	flags := f.byte()
	p.Code, p.Status = deal.Code(f.byte()), deal.OrderStatus(f.byte())
	if p.Code > deal.OrderTooLarge || p.Status > deal.Refunded {
		f.fail()
	}
	p.Detail = string(f.text(detailMax))
	at := f.uint()
	p.Order, p.Moved = f.uint(), f.uint()
	p.Group = readGroup(&f)
	p.Replayed = flags&replyReplayed != 0
	if flags&replyEvent != 0 {
		record := f.text(recordMax)
		if err := f.end(); err != nil {
			return err
		}
		if err := p.Event.Decode(record); err != nil {
			return err
		}
		if flags&replyPrice != 0 {
			p.Event.Kind = 0
		}
	}
	p.Event.At = int64(at)
	return readView(&f, &r.View, r.Deal, s)
}

func appendGroup(dst []byte, g *deal.GroupView) []byte {
	for _, n := range [...]uint64{g.Seq, uint64(g.Size), uint64(g.Members), uint64(g.Status), uint64(g.ExpiresAt)} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func readGroup(f *fieldReader) deal.GroupView {
	g := deal.GroupView{
		Seq: f.uint(), Size: uint32(f.count(deal.MaxGroupSize)), Members: uint32(f.count(deal.MaxGroupSize)),
		Status: deal.GroupStatus(f.count(int(deal.Failed))),
	}
	g.ExpiresAt = int64(f.uint())
	return g
}

// appendView encodes a deal's numbers, its terms in a piece of their own that is the same
// as long as they are, and the rules that are switched off.
func appendView(dst []byte, v *deal.View) []byte {
	var flags byte
	if v.Paused {
		flags |= 1
	}
	if v.Closed {
		flags |= 2
	}
	dst = append(binary.AppendUvarint(dst, v.Seq), flags)
	for _, n := range [...]int64{v.Stock, v.Available, v.Reserved, v.Sold} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	if v.Spec == nil {
		return appendText(dst, "")
	}
	dst = append(appendTerms(dst, v.Spec), byte(len(v.Off)))
	for _, rule := range v.Off {
		dst = appendText(dst, rule)
	}
	return dst
}

// appendTerms encodes a deal's terms as a field.
func appendTerms(dst []byte, spec *deal.Spec) []byte {
	// The record's length stands in front of it, in three bytes so that it can be
	// filled in afterwards.
	at := len(dst)
	dst = append(dst, 0x80, 0x80, 0)
	terms := deal.View{Spec: spec}
	dst = terms.AppendView(dst)
	n := len(dst) - at - 3
	dst[at], dst[at+1], dst[at+2] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	return dst
}

func readView(f *fieldReader, v *deal.View, id []byte, s *specs) (err error) {
	*v = deal.View{Seq: f.uint()}
	flags := f.byte()
	v.Paused, v.Closed = flags&1 != 0, flags&2 != 0
	for _, n := range [...]*int64{&v.Stock, &v.Available, &v.Reserved, &v.Sold} {
		*n = int64(f.uint())
	}
	record := f.text(recordMax)
	if err := f.end(); err != nil || len(record) == 0 {
		return err
	}
	for range f.laterCount(deal.MaxRules) {
		v.Off = append(v.Off, string(f.text(deal.MaxIDLen)))
	}
	if err := f.end(); err != nil {
		return err
	}
	v.Spec, err = s.of(id, record)
	return err
}

// specs remembers the terms of other nodes' deals, so that an answer that brings the
// same again allocates nothing.
type specs struct {
	known *xsync.Map[string, *knownSpec]
}

func newSpecs() specs { return specs{xsync.NewMap[string, *knownSpec]()} }

// knownSpec is what a record was found to say.
type knownSpec struct {
	record []byte
	spec   *deal.Spec
}

// specsMax bounds what is remembered; beyond it all of it is forgotten.
const specsMax = 4096

// of returns the terms in a record of the deal id.
func (s *specs) of(id, record []byte) (*deal.Spec, error) {
	// The string is only read during the call: Load keeps no key.
	k, _ := s.known.Load(unsafe.String(unsafe.SliceData(id), len(id)))
	if k != nil && string(k.record) == string(record) {
		return k.spec, nil
	}
	v, err := deal.DecodeView(record)
	if err != nil {
		return nil, err
	}
	if s.known.Size() >= specsMax {
		s.known.Clear()
	}
	s.known.Store(string(id), &knownSpec{append([]byte(nil), record...), v.Spec})
	return v.Spec, nil
}

// encodeDeals encodes a message about deals, at most dealsMax.
func encodeDeals(o op, ids []string) []byte {
	dst := binary.AppendUvarint(appendOp(nil, o), uint64(len(ids)))
	for _, id := range ids {
		dst = appendText(dst, id)
	}
	return dst
}

func readDeals(b []byte) (ids []string, err error) {
	f := fieldReader{b: b}
	for range f.count(dealsMax) {
		ids = append(ids, string(f.id()))
	}
	return ids, f.end()
}

// appendWatch asks for the state of a deal that is no longer at event seq in status.
func appendWatch(dst []byte, id string, seq uint64, status deal.Status) []byte {
	dst = appendText(appendOp(dst, opWatch), id)
	return append(binary.AppendUvarint(dst, seq), byte(status))
}

func readWatch(b []byte) (id string, seq uint64, status deal.Status, err error) {
	f := fieldReader{b: b}
	id, seq, status = string(f.id()), f.uint(), deal.Status(f.byte())
	return id, seq, status, f.end()
}

// appendNews answers a watch: the deal as it stands, and the groups that changed.
func appendNews(dst []byte, v *deal.View, status deal.Status, groups []groupChange) []byte {
	dst = append(appendOutcome(dst, outcomeAnswered), byte(status))
	dst = binary.AppendUvarint(dst, uint64(len(groups)))
	for i := range groups {
		dst = binary.AppendUvarint(dst, groups[i].seq)
		dst = appendGroup(dst, &groups[i].group)
	}
	return appendView(dst, v)
}

func readNews(b, id []byte, v *deal.View, s *specs) (status deal.Status, groups []groupChange, err error) {
	f := fieldReader{b: b}
	status = deal.Status(f.byte())
	if status > deal.Live {
		f.fail()
	}
	for range f.count(changesMax) {
		groups = append(groups, groupChange{f.uint(), readGroup(&f)})
	}
	return status, groups, readView(&f, v, id, s)
}
