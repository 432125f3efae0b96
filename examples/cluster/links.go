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

// toAll makes a link to each address, and returns the addresses by which to use them:
// the given ones, without any links, if the way is to be direct.
func (l *links) toAll(name string, addrs []string, direct bool) (made []*link, via []string, err error) {
	if direct {
		return nil, addrs, nil
	}
	for _, addr := range addrs {
		carried, err := l.to(name, addr)
		if err != nil {
			return nil, nil, err
		}
		made, via = append(made, carried), append(via, carried.Listen)
	}
	return made, via, nil
}

func (l *links) close() {
	for _, carried := range l.all {
		carried.Stop()
	}
}

// slowBy is how much later an answer comes over a slow link.
const slowBy = 200 * time.Millisecond

// slow makes what passes in each direction late by half of slowBy.
func (l *link) slow() error {
	half := slowBy.Milliseconds() / 2
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

// each does something to each link.
func each(all []*link, do func(*link) error) (err error) {
	for _, carried := range all {
		err = errors.Join(err, do(carried))
	}
	return err
}
