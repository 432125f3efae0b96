package gateway

import (
	"bytes"
	_ "embed"
	"errors"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/pprofhandler"
)

const (
	// adminConnections bounds the operators' listener.
	adminConnections = 256
	// clockLagMax is how late the clock may be before the process is not fit
	// to decide anything: all expiries hang on it.
	clockLagMax = 5 * time.Second
)

type statusReply struct {
	Status string `json:"status"`
}

// livez says whether the process is worth keeping.
func (s *Server) livez(c *call) error {
	if lag := s.cfg.Clock.Lag(); lag > clockLagMax {
		return refuse(unavailable, "the clock has not ticked for "+lag.String())
	}
	return c.reply(fasthttp.StatusOK, statusReply{"ok"})
}

// readyz says whether the process should get traffic.
func (s *Server) readyz(c *call) error {
	if s.node.Draining() {
		return &refusal{problem: draining}
	}
	if s.node.Stats().ReadOnly {
		return refuse(unavailable, "the disk is nearly full: the journal takes no new orders")
	}
	if err := s.cfg.Ready(); err != nil {
		return refuse(unavailable, err.Error())
	}
	return s.livez(c)
}

//go:embed openapi.yaml
var openAPI []byte

func (s *Server) openAPI(c *call) error {
	c.ctx.Response.Header.SetContentType("application/yaml")
	c.ctx.Response.SetBodyRaw(openAPI)
	return nil
}

// smallBody refuses a body that handlers of net/http would be given in memory, of whatever
// size.
func (c *call) smallBody() error {
	if c.ctx.Request.Header.ContentLength() > bodyPrefetched {
		return refuse(bodyTooLarge, "send no body")
	}
	return nil
}

// metrics answers with the process's metrics, as the Front did before.
func (s *Server) metrics(c *call) error {
	if err := c.smallBody(); err != nil {
		return err
	}
	s.front.metrics(c.ctx)
	return nil
}

// pprof answers with Go's own profiles. The index is at the path with the
// slash, so that its links work; its handler knows it without.
func (s *Server) pprof(c *call) error {
	if err := c.smallBody(); err != nil {
		return err
	}
	c.ctx.URI().SetPathBytes(bytes.TrimSuffix(c.ctx.Path(), slash))
	pprofhandler.PprofHandler(c.ctx)
	resp := &c.ctx.Response
	status := resp.StatusCode()
	if status < fasthttp.StatusBadRequest {
		return nil
	}
	says := strings.TrimSpace(string(resp.Body()))
	resp.Header.Del(fasthttp.HeaderContentDisposition)
	switch status {
	case fasthttp.StatusNotFound:
		return refuse(notFound, "there is no such profile")
	case fasthttp.StatusBadRequest:
		return refuse(invalidRequest, says)
	}
	return refuse(unavailable, says) // another profile is being taken
}

// journalReply is the state of the journal.
type journalReply struct {
	Streams        int    `json:"streams"`
	Groups         uint64 `json:"groups"`
	Writes         uint64 `json:"writes"`
	Events         uint64 `json:"events"`
	Bytes          uint64 `json:"bytes"`
	Refused        uint64 `json:"refused"`
	BytesWritten   uint64 `json:"bytes_written"`
	DiskFree       uint64 `json:"disk_free"`
	ReadOnly       bool   `json:"read_only"`
	Corrupt        int    `json:"corrupt_streams"`
	TornBytes      int64  `json:"recovered_torn_bytes"`
	TornFile       string `json:"recovered_torn_file,omitempty"`
	RecoveredDeals int    `json:"recovered_deals"`
	ReplayedEvents uint64 `json:"replayed_events"`
	RecoveryMs     int64  `json:"recovery_ms"`
}

func (s *Server) journal(c *call) error {
	st, rec := s.cfg.Store.Stats(), s.node.Recovery()
	return c.reply(fasthttp.StatusOK, journalReply{
		Streams: st.Streams, Groups: st.Groups, Writes: st.Writes, Events: st.Events, Bytes: st.Bytes, Refused: st.Refused,
		BytesWritten: st.BytesWritten, DiskFree: st.DiskFree, ReadOnly: st.ReadOnly, Corrupt: st.Corrupt,
		TornBytes: st.Recovery.TornBytes, TornFile: st.Recovery.TornFile,
		RecoveredDeals: rec.Deals, ReplayedEvents: rec.Events, RecoveryMs: rec.Took.Milliseconds(),
	})
}

func (s *Server) snapshot(c *call) error {
	if err := c.readNothing(); err != nil {
		return err
	}
	if err := s.node.Snapshot(s.ctx); err != nil {
		return err
	}
	return c.reply(fasthttp.StatusOK, statusReply{"done"})
}

// drain asks the process, or another member of the cluster, to stop. The answer leaves
// before it does.
func (s *Server) drain(c *call) error {
	if err := c.readNothing(); err != nil {
		return err
	}
	if member := string(c.ctx.QueryArgs().Peek("member")); member != "" {
		if err := s.drainMember(member); err != nil {
			return err
		}
	} else {
		s.drainOne.Do(s.cfg.Drain)
	}
	return c.reply(fasthttp.StatusAccepted, statusReply{"draining"})
}

type keyBody struct {
	Role       string `json:"role"`
	MerchantID string `json:"merchant_id"`
}

type keyReply struct {
	Key
	Secret string `json:"key"`
}

// noKeys answers in open mode for all that has to do with keys.
func (*Server) noKeys(*call) error {
	return refuse(notFound, "this server believes every caller (auth open) and looks at no keys: stop it, make keys, and start it with auth keys")
}

func (s *Server) createKey(c *call) error {
	var body keyBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	key, full, err := s.cfg.Auth.Keys.Create(s.ctx, body.Role, body.MerchantID)
	if err != nil {
		return err
	}
	c.ctx.Response.Header.Set("Cache-Control", "no-store")
	return c.reply(fasthttp.StatusCreated, keyReply{key, full})
}

func (s *Server) listKeys(c *call) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	after, err := c.cursorID()
	if err != nil {
		return err
	}
	var data []Key
	more, next := false, ""
	for _, k := range s.cfg.Auth.Keys.List() {
		if k.ID <= after {
			continue
		}
		if more = len(data) == limit; more {
			break
		}
		data, next = append(data, k), k.ID
	}
	return c.reply(fasthttp.StatusOK, newPage(data, more, next))
}

func (s *Server) revokeKey(c *call) error {
	err := s.cfg.Auth.Keys.Revoke(s.ctx, string(c.params[0]))
	if errors.Is(err, ErrKeyNotFound) {
		return refuse(notFound, "there is no such key")
	}
	if err != nil {
		return err
	}
	c.ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}
