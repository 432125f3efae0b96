package gateway

import (
	"context"
	"errors"

	"github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// A rule's log is lines of JSON: what is kept, and with ?follow=true all that
// comes. An empty line is a heartbeat.

const ndjson = "application/x-ndjson"

// logLine is one evaluation of an order.
type logLine struct {
	Seq         uint64   `json:"seq"`
	At          instant  `json:"at"`
	Version     uint32   `json:"version"`
	InputDigest string   `json:"input_digest"`
	Outcome     string   `json:"outcome"`
	Discount    int64    `json:"discount"`
	Label       string   `json:"label,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Final       bool     `json:"final"`
	Fault       string   `json:"fault,omitempty"`
	FaultDetail string   `json:"fault_detail,omitempty"`
	Fuel        uint64   `json:"fuel"`
	Logs        []string `json:"logs"`
	LogsDropped int      `json:"logs_dropped,omitempty"`
	Missed      uint64   `json:"missed,omitempty"` // entries before this one that the reader was too slow for
}

func appendLogLine(b []byte, e *plugins.LogEntry, missed uint64) ([]byte, error) {
	l := logLine{
		Seq: e.Seq, At: instant(e.At), Version: e.Version, InputDigest: digestText(e.Digest),
		Outcome: e.Outcome.String(), Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Final: e.Final,
		FaultDetail: e.FaultDetail, Fuel: e.Fuel, Logs: logLines(e.Logs), LogsDropped: e.LogsDropped, Missed: missed,
	}
	if e.Fault != abi.FaultNone {
		l.Outcome, l.Fault = "fault", e.Fault.String()
	}
	line, err := json.Marshal(&l)
	return append(append(b, line...), '\n'), err
}

func (s *Server) ruleLogs(c *call) error {
	id, err1 := c.ruleID()
	owner, err2 := c.merchantOf("")
	follow, err3 := c.queryFlag("follow")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	entries, err := s.cfg.Rules.Logs(owner, id)
	if err != nil {
		return err
	}
	if !follow {
		var body []byte
		for i := range entries {
			if body, err = appendLogLine(body, &entries[i], 0); err != nil {
				return err
			}
		}
		c.ctx.Response.Header.SetContentType(ndjson)
		c.ctx.Response.SetBodyRaw(body)
		return nil
	}
	return s.openStream(c, s.streams, ndjson, "", func(out *eventWriter) error {
		f, err := s.cfg.Rules.Follow(owner, id)
		if err != nil {
			return err
		}
		defer f.Close()
		return s.followRule(out, f)
	})
}

// followRule writes a rule's entries until the client has gone, is too slow, or
// the server stops.
func (s *Server) followRule(out *eventWriter, f *plugins.Follower) error {
	for {
		if err := out.flush(); err != nil {
			return err
		}
		entries, missed := s.nextEntries(f)
		if s.front.stopping.Err() != nil {
			return nil
		}
		if len(entries) == 0 {
			out.buf = append(out.buf, '\n')
		}
		for i := range entries {
			var err error
			if out.buf, err = appendLogLine(out.buf, &entries[i], missed); err != nil {
				return err
			}
			missed = 0
		}
	}
}

// nextEntries returns what is new, or nothing when it is time for a heartbeat.
func (s *Server) nextEntries(f *plugins.Follower) (entries []plugins.LogEntry, missed uint64) {
	ctx, cancel := context.WithCancel(s.front.stopping)
	defer cancel()
	defer s.cfg.Clock.AfterFunc(heartbeat, cancel)()
	return f.Next(ctx.Done())
}
