package actors

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// MemberStatus is what a node tells of itself to operators.
type MemberStatus struct {
	Member   string // its id; "" = this node
	Err      error  // it did not answer, and the rest is zero
	Deals    int    // that belong to it
	Active   int    // in memory
	Waiting  int    // requests
	ReadOnly bool
	Draining bool
	// The epochs of the deals in memory, 0 if there is none.
	EpochLowest, EpochHighest uint64
	HandedOver                uint64        // deals, since its start
	Asked, Served             uint64        // messages to and from other nodes
	ClockLag                  time.Duration // as clockd.Clock.Lag
	Wall                      int64         // its clock, Unix ms
}

// statusWait bounds how long members are asked how they are.
const statusWait = time.Second

// Status returns how this node is.
func (n *Node) Status() MemberStatus {
	st := n.Stats()
	s := MemberStatus{
		Deals: st.Deals, Active: st.Active, Waiting: st.Waiting, ReadOnly: st.ReadOnly, Draining: n.Draining(),
		EpochLowest: st.EpochLowest, EpochHighest: st.EpochHighest,
		HandedOver: st.HandedOver, Asked: st.Asked, Served: st.Served,
		ClockLag: n.clock.Lag(), Wall: n.clock.Now().Wall,
	}
	if n.cfg.Peers != nil {
		s.Deals = 0
		n.directory.deals.Range(func(id string, _ *entry) bool {
			if n.owns(id) {
				s.Deals++
			}
			return true
		})
	}
	return s
}

// Statuses returns how the other members are, by their ids.
func (n *Node) Statuses() []MemberStatus {
	if n.cfg.Peers == nil {
		return nil
	}
	members := n.cfg.Peers.Others(nil)
	all := make([]MemberStatus, len(members))
	for i, m := range members {
		all[i] = MemberStatus{Member: m, Err: ErrDeadline}
	}
	for _, a := range n.askAll(members, appendOp(nil, opStatus), statusWait) {
		s := &all[slices.Index(members, a.member)]
		if s.Err = a.err; a.err == nil {
			s.Err = s.read(a.fields)
		}
	}
	return all
}

// AskToLeave asks a member to hand its deals over and to end. ErrNoMember,
// ErrUnavailable.
func (n *Node) AskToLeave(member string) error {
	if n.cfg.Peers == nil || !slices.Contains(n.cfg.Peers.Others(nil), member) {
		return ErrNoMember
	}
	if _, err := n.ask(member, appendOp(nil, opDrain), statusWait); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, member, err)
	}
	return nil
}

func (n *Node) serveStatus(context.Context, []byte) ([]byte, error) {
	s := n.Status()
	return s.append(appendOutcome(nil, outcomeAnswered)), nil
}

func (n *Node) serveDrain(context.Context, []byte) ([]byte, error) {
	n.cfg.Leave()
	return appendOutcome(nil, outcomeAnswered), nil
}

// Flags of a status.
const (
	statusReadOnly = 1 << iota
	statusDraining
)

func (s *MemberStatus) numbers() [9]uint64 {
	return [...]uint64{
		uint64(s.Deals), uint64(s.Active), uint64(s.Waiting), s.EpochLowest, s.EpochHighest,
		s.HandedOver, s.Asked, s.Served, uint64(s.ClockLag),
	}
}

func (s *MemberStatus) append(dst []byte) []byte {
	var flags byte
	if s.ReadOnly {
		flags |= statusReadOnly
	}
	if s.Draining {
		flags |= statusDraining
	}
	dst = append(dst, flags)
	for _, v := range s.numbers() {
		dst = binary.AppendUvarint(dst, v)
	}
	return binary.AppendUvarint(dst, uint64(s.Wall))
}

func (s *MemberStatus) read(fields []byte) error {
	f := fieldReader{b: fields}
	flags := f.byte()
	s.ReadOnly, s.Draining = flags&statusReadOnly != 0, flags&statusDraining != 0
	s.Deals, s.Active, s.Waiting = int(f.uint()), int(f.uint()), int(f.uint())
	s.EpochLowest, s.EpochHighest = f.uint(), f.uint()
	s.HandedOver, s.Asked, s.Served = f.uint(), f.uint(), f.uint()
	s.ClockLag, s.Wall = time.Duration(f.uint()), int64(f.uint())
	return f.end()
}
