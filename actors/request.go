package actors

import (
	"errors"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Why a request was not decided. A decision that says no is not an error: it
// is in Reply.Code.
var (
	// ErrOverloaded: the node, or the deal, has as much in flight as it may.
	ErrOverloaded = errors.New("actors: too many requests in flight")
	// ErrDraining: the node takes no new work because it is about to stop.
	ErrDraining = errors.New("actors: the node is draining")
	// ErrInFlight: a drain ended before all requests were answered.
	ErrInFlight = errors.New("actors: requests are still in flight")
	// ErrUnavailable: the deal cannot serve now. If an order was asked for,
	// it has not been acknowledged; the same key finds out what became of it.
	ErrUnavailable = errors.New("actors: the deal is not available")
	// ErrReadOnly: the disk is nearly full. Nothing was placed.
	ErrReadOnly = errors.New("actors: the journal takes no new orders")
	// ErrDeadline: the answer did not come in time, and the outcome is
	// unknown. The request is no longer the caller's.
	ErrDeadline = errors.New("actors: deadline exceeded")
	// ErrDealNotFound: the node knows no deal of that id.
	ErrDealNotFound = errors.New("actors: no such deal")
	// ErrDealExists: the orders of another deal would have the same ids.
	ErrDealExists = errors.New("actors: another deal is called so in the ids of its orders")
	// ErrOrderNotFound: the deal has no order of that seq.
	ErrOrderNotFound = errors.New("actors: no such order")
	// ErrNoMember: the cluster has no such member, or it is this node.
	ErrNoMember = errors.New("actors: no such other member")

	// errAgain: nothing was decided, because the deal is on its way to another
	// activation, here or elsewhere. Whoever asked looks for that one.
	errAgain = errors.New("actors: the deal is moving")
)

// Request is one command on its way through a deal. It comes from
// Node.Acquire, is the caller's until Call, is the caller's again after, and
// goes back with Release. Buffers stay with it when it is reused.
type Request struct {
	own.Cell

	Deal  []byte       // id of the deal
	Cmd   deal.Command // its slices may point into Body
	Reply deal.Reply
	View  deal.View // the deal right after the command
	Body  []byte    // the caller's scratch

	// Course is where the caller wants the request's course taken down, nil =
	// nowhere. It is the caller's to read when the request is.
	Course *Course

	err  error
	node *Node             // asked another node; nil if it did not
	back func(body []byte) // to the node that asked this one; nil if none did
	wire []byte            // scratch for what goes between nodes
}

// bodyKept bounds each scratch that a free request keeps.
const bodyKept = 32 << 10

func resetRequest(r *Request) {
	r.Deal = nil
	r.Cmd.Reset()
	r.Reply.Reset()
	r.View = deal.View{}
	r.Course = nil
	r.err, r.node, r.back = nil, nil, nil
	if r.Body = r.Body[:0]; cap(r.Body) > bodyKept {
		r.Body = nil
	}
	if r.wire = r.wire[:0]; cap(r.wire) > bodyKept {
		r.wire = nil
	}
}

func requestCell(r *Request) *own.Cell { return &r.Cell }

// takesRoom says whether the command is one that a full disk refuses.
// Confirming and cancelling only shrink what is promised, and go on.
func (r *Request) takesRoom() bool {
	switch r.Cmd.Kind {
	case deal.Place, deal.Create, deal.Change:
		return true
	case deal.Confirm, deal.Cancel, deal.Refund, deal.Pause, deal.Resume, deal.Close,
		deal.Quote, deal.LookupOrder, deal.LookupGroup:
	}
	return false
}
