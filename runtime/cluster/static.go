package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// Static returns a registry for nodes that are told each other's addresses, for tests
// and demonstrations: a member is who answers a ping. Nobody decides for all, so nodes
// that do not reach each other all go on, and a node hears of a loss only by itself.
func Static(addresses ...string) *StaticRegistry { return &StaticRegistry{addresses: addresses} }

// StaticRegistry is a Registry without a place for records.
type StaticRegistry struct {
	addresses []string
	ping      func(ctx context.Context, address string) (Member, error)
	clock     *clockd.Clock

	mu   sync.Mutex // guards self and ttl
	self Member
	ttl  time.Duration
}

// bind gives the registry the links of the node that it belongs to.
func (s *StaticRegistry) bind(ping func(context.Context, string) (Member, error), clock *clockd.Clock) {
	s.ping, s.clock = ping, clock
}

// Join makes m what Watch tells of this node.
func (s *StaticRegistry) Join(_ context.Context, m Member, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.self, s.ttl = m, ttl
	return nil
}

// Update is Join for the member that is there.
func (s *StaticRegistry) Update(ctx context.Context, m Member) error { return s.Join(ctx, m, s.ttl) }

// Renew does nothing: there is no lease and no record.
func (*StaticRegistry) Renew(context.Context) error { return nil }

// Leave does nothing: see Renew.
func (*StaticRegistry) Leave(context.Context) error { return nil }

// Close does nothing: see Renew.
func (*StaticRegistry) Close() error { return nil }

// heard is an address and who answered there last.
type heard struct {
	address string
	member  Member
	at      int64 // Mono of the answer; 0: never
}

// Watch pings all addresses, three times in a TTL, and tells of those that answered
// within one.
func (s *StaticRegistry) Watch(ctx context.Context, changed func([]Member)) error {
	others := make([]heard, 0, len(s.addresses))
	self, ttl := s.record()
	for _, address := range s.addresses {
		if address != self.Address {
			others = append(others, heard{address: address})
		}
	}
	for {
		s.round(ctx, others, ttl/renewsPerTTL)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		changed(s.view(others, ttl))
		if err := s.clock.Sleep(ctx, ttl/renewsPerTTL); err != nil {
			return err
		}
	}
}

func (s *StaticRegistry) record() (Member, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.self, s.ttl
}

// round pings everybody at once.
func (s *StaticRegistry) round(ctx context.Context, others []heard, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answers sync.WaitGroup
	for i := range others {
		answers.Go(func() {
			if m, err := s.ping(ctx, others[i].address); err == nil && m.ID != "" {
				others[i].member, others[i].at = m, clockd.Mono()
			}
		})
	}
	answers.Wait()
}

func (s *StaticRegistry) view(others []heard, ttl time.Duration) []Member {
	self, _ := s.record()
	view := []Member{self}
	for _, h := range others {
		if h.at > 0 && clockd.Mono()-h.at < int64(ttl) {
			view = append(view, h.member)
		}
	}
	return view
}
