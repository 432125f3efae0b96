package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// links are the connections that this program carries itself, so that it can slow them
// down and break them.
type links struct {
	server *toxiproxy.ApiServer // of which only the settings are used: it does not listen
	ip     string
	all    []*link
}

// link carries whatever connects to Listen to one address.
type link struct{ *toxiproxy.Proxy }

func newLinks(g *ground) *links {
	return &links{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		ip:     g.ip(linksAt),
	}
}

func (l *links) to(name, addr string) (*link, error) {
	proxy := toxiproxy.NewProxy(l.server, name, l.ip+":0", addr)
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("link to %s: %w", name, err)
	}
	carried := &link{proxy}
	l.all = append(l.all, carried)
	return carried, nil
}

func (l *links) close() {
	for _, carried := range l.all {
		carried.Stop()
	}
}

// slow makes every packet later, half of it in each direction.
func (l *link) slow(by time.Duration) error {
	half := by.Milliseconds() / 2
	_, up := l.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":"up","type":"latency","stream":"upstream","attributes":{"latency":%d}}`, half)))
	_, down := l.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":"down","type":"latency","stream":"downstream","attributes":{"latency":%d}}`, half)))
	return errors.Join(up, down)
}

// breaks resets each connection as soon as the other side answers: what was asked for
// has happened there, and nobody here is told.
func (l *link) breaks() error {
	_, err := l.Toxics.AddToxicJson(strings.NewReader(`{"name":"break","type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`))
	return err
}

// silence lets nothing through, in either direction, without closing anything.
func (l *link) silence() error {
	_, up := l.Toxics.AddToxicJson(strings.NewReader(`{"name":"up","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`))
	_, down := l.Toxics.AddToxicJson(strings.NewReader(`{"name":"down","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`))
	return errors.Join(up, down)
}

// mend makes the link what it was.
func (l *link) mend() error {
	l.Toxics.ResetToxics(context.Background())
	return nil
}
