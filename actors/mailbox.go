package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/clockd"
)

// batch is the one kind of user message that an actor behind a mailbox sees:
// all that was queued when its turn came.
type batch struct {
	msgs  []any
	since int64 // when the first of them came, or the mailbox opened, Mono ns of the clock's snapshot
}

// How long a message may take, on average, and a turn, of an actor whose next turn others may
// wait for, ns: many times what one takes whose rules are as quick as rules can be.
const (
	slowMessage = 100_000
	slowTurn    = 5_000_000
)

// mailbox hands its actor the whole backlog as one *batch. It starts shut to
// deliveries, so that messages can gather while the actor's state is loaded;
// open lets them through. Once closed it accepts nothing: bounced gets each
// later message, on the sender's goroutine. Senders post to the mailbox itself:
// a PID whose actor has stopped swallows what it is sent, and a request that
// races with its deal's passivation would wait for ever.
//
// Its length is bounded by the requests that admission lets exist, plus a
// handful of control messages. Proto.Actor's bounded mailboxes block the
// sender or drop the front; this one never does either.
type mailbox struct {
	bounced    func(msg any)
	clock      *clockd.Clock
	invoker    actor.MessageInvoker
	dispatcher actor.Dispatcher
	run        func() // m.deliver, made once: a method value allocates
	batch      batch
	slow       bool // the last turn took long; whoever schedules the next one reads it

	mu        sync.Mutex // guards everything below
	queue     []any
	since     int64 // of the first in queue, as in batch
	spare     []any // the emptied slice that queue is swapped with
	system    []any
	opened    bool
	closed    bool
	scheduled bool // deliver is queued or running
}

var _ actor.Mailbox = (*mailbox)(nil)

func newMailbox(bounced func(any), clock *clockd.Clock) *mailbox {
	m := &mailbox{bounced: bounced, clock: clock}
	m.run = m.deliver
	return m
}

// RegisterHandlers implements actor.Mailbox.
func (m *mailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.invoker, m.dispatcher = invoker, dispatcher
}

// Start implements actor.Mailbox.
func (m *mailbox) Start() {}

// UserMessageCount implements actor.Mailbox.
func (m *mailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// PostUserMessage implements actor.Mailbox. It never blocks.
func (m *mailbox) PostUserMessage(msg any) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.bounced(msg)
		return
	}
	if len(m.queue) == 0 {
		m.since = m.clock.Now().Mono
	}
	m.queue = append(m.queue, msg)
	m.unlockAndSchedule()
}

// PostSystemMessage implements actor.Mailbox.
func (m *mailbox) PostSystemMessage(msg any) {
	m.mu.Lock()
	m.system = append(m.system, msg)
	m.unlockAndSchedule()
}

// open begins deliveries.
func (m *mailbox) open() {
	m.mu.Lock()
	m.opened = true
	if len(m.queue) > 0 {
		m.since = m.clock.Now().Mono // until now the deal was loaded
	}
	m.unlockAndSchedule()
}

// close refuses every later message and returns those that were queued.
func (m *mailbox) close() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	queued := m.queue
	m.queue, m.closed = nil, true
	return queued
}

// closeIfEmpty closes the mailbox unless something is queued.
func (m *mailbox) closeIfEmpty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) > 0 {
		return false
	}
	m.closed = true
	return true
}

// unlockAndSchedule releases m.mu and gives the actor a turn if it is owed one.
func (m *mailbox) unlockAndSchedule() {
	turn := !m.scheduled && m.pending()
	if turn {
		m.scheduled = true
	}
	m.mu.Unlock()
	if !turn {
		return
	}
	if w, ok := m.dispatcher.(*workers); ok && m.slow {
		w.Aside(m.run)
		return
	}
	m.dispatcher.Schedule(m.run)
}

func (m *mailbox) pending() bool {
	return len(m.system) > 0 || m.opened && len(m.queue) > 0
}

// deliver is one turn: what was queued when it began. More waits for the next
// turn, behind the other deals'.
func (m *mailbox) deliver() {
	m.mu.Lock()
	system := m.system
	m.system = nil
	if m.opened {
		m.batch.msgs, m.batch.since, m.queue = m.queue, m.since, m.spare[:0]
		m.spare = nil
	}
	m.mu.Unlock()

	began := clockd.Mono()
	for _, msg := range system {
		m.invoker.InvokeSystemMessage(msg)
	}
	if len(m.batch.msgs) > 0 {
		m.invoker.InvokeUserMessage(&m.batch)
	}
	slow := clockd.Mono()-began > min(slowMessage*int64(max(len(m.batch.msgs), 1)), slowTurn)
	clear(m.batch.msgs)

	m.mu.Lock()
	m.slow = slow
	if m.batch.msgs != nil {
		m.spare, m.batch.msgs = m.batch.msgs, nil
	}
	m.scheduled = false
	m.unlockAndSchedule()
}
