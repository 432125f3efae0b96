package obs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of what Sales tells apart.
const (
	// CategoriesMax is how many categories, each in one currency, have series of
	// their own: those whose orders came first. Merchants name them.
	CategoriesMax = 32
	// ChannelsMax is how many channels an operator may name.
	ChannelsMax = 16
)

// What categories and channels without series of their own are called.
const (
	otherLabel = "other"
	noLabel    = "none"
)

// Sale is what a deal decided about an order.
type Sale uint8

// The decisions.
const (
	SaleAccepted Sale = iota
	SaleRefused       // sold out, over, not for this user
	saleCount
)

var saleNames = [saleCount]string{"accepted", "refused"}

// Sales counts the orders that a deal has decided, and what the accepted ones come
// to, by the category of the deal and the channel that they came through.
type Sales struct {
	orders *prometheus.CounterVec
	value  *prometheus.CounterVec

	channels []string // the last two stand for any other, and for none
	other    *category

	mu         sync.Mutex                                // guards learning a category
	categories atomic.Pointer[map[categoryKey]*category] // never changed, only replaced
}

type categoryKey struct {
	name     string
	currency [3]byte
}

// category has the series of one category and currency, each made when it is first
// counted.
type category struct {
	sales    *Sales
	name     string
	currency string // "" = several, whose amounts do not add up
	orders   [ChannelsMax + 2][saleCount]atomic.Pointer[prometheus.Counter]
	value    [ChannelsMax + 2]atomic.Pointer[prometheus.Counter]
}

// Sales makes the series of orders by category and channel. Only the channels that
// are named are told apart: any client can invent one.
func (m *Metrics) Sales(channels []string) (*Sales, error) {
	if len(channels) > ChannelsMax {
		return nil, fmt.Errorf("obs: %d channels, at most %d are told apart", len(channels), ChannelsMax)
	}
	for _, c := range channels {
		if c == "" || c == otherLabel || c == noLabel {
			return nil, fmt.Errorf("obs: a channel may not be called %q", c)
		}
	}
	s := &Sales{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "sales_orders_total",
			Help: "Orders that a deal has decided, by the deal's category, the order's channel, and the outcome: accepted or refused.",
		}, []string{"category", "channel", "outcome"}),
		value: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "sales_value_total",
			Help: "What the accepted orders come to, in minor units of their currency: cents, fen.",
		}, []string{"category", "channel", "currency"}),
		channels: append(slices.Clone(channels), otherLabel, noLabel),
	}
	s.other = &category{sales: s, name: otherLabel}
	s.categories.Store(&map[categoryKey]*category{})
	m.registry.MustRegister(s.orders, s.value)
	return s, nil
}

// Count counts an order for a deal of that category and currency. channel is the
// order's own word, nil if it has none; value is in minor units, and counts if the
// order is accepted. It allocates only when a series is new.
func (s *Sales) Count(name string, currency [3]byte, channel []byte, sale Sale, value int64) {
	c := s.category(name, currency)
	i := s.channel(channel)
	series := &c.orders[i][sale]
	counter := series.Load()
	if counter == nil {
		made := s.orders.WithLabelValues(c.name, s.channels[i], saleNames[sale])
		counter = &made
		series.Store(counter)
	}
	(*counter).Inc()
	if sale == SaleAccepted && c.currency != "" {
		c.add(i, value)
	}
}

func (c *category) add(channel int, value int64) {
	counter := c.value[channel].Load()
	if counter == nil {
		made := c.sales.value.WithLabelValues(c.name, c.sales.channels[channel], c.currency)
		counter = &made
		c.value[channel].Store(counter)
	}
	(*counter).Add(float64(value))
}

// channel returns the index of a channel in s.channels.
func (s *Sales) channel(name []byte) int {
	if len(name) == 0 {
		return len(s.channels) - 1
	}
	for i, c := range s.channels[:len(s.channels)-2] {
		if string(name) == c {
			return i
		}
	}
	return len(s.channels) - 2
}

func (s *Sales) category(name string, currency [3]byte) *category {
	key := categoryKey{name, currency}
	known := *s.categories.Load()
	if c := known[key]; c != nil {
		return c
	}
	if len(known) == CategoriesMax {
		return s.other
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known = *s.categories.Load()
	if c := known[key]; c != nil {
		return c
	}
	if len(known) == CategoriesMax {
		return s.other
	}
	grown := maps.Clone(known)
	c := &category{sales: s, name: strings.Clone(name), currency: string(currency[:])}
	if name == "" {
		c.name = noLabel
	}
	grown[key] = c
	s.categories.Store(&grown)
	return c
}
