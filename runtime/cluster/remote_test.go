package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (raw) Unmarshal(_ []byte, _ any) error { return nil }
func (raw) Name() string                    { return "proto" }

// throw sends a message to a node's endpoint and waits until the node has read it, and
// ended the stream if it did not like it.
func throw(t testing.TB, conn *grpc.ClientConn, message []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/remote.Remoting/Receive", grpc.ForceCodec(raw{}))
	if err != nil {
		t.Fatal(err)
	}
	s.SendMsg(message)
	s.CloseSend()
	for {
		var nothing []byte
		if err := s.RecvMsg(&nothing); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the node does not end the stream")
			}
			return err
		}
	}
}

func dial(t testing.TB, s *station) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.cfg.Advertise, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// envelopes are messages that remote's reader does not expect, and some that it does.
func envelopes(address string) map[string]*remote.RemoteMessage {
	inner, err := proto.Marshal(&batch.Batch{Version: 1, From: "x", To: "b", Address: "127.0.0.1:1", Session: 1, Sequence: 1})
	if err != nil {
		panic(err)
	}
	wrap := func(change func(*remote.MessageBatch, *remote.MessageEnvelope)) *remote.RemoteMessage {
		envelope := &remote.MessageEnvelope{MessageData: inner}
		b := &remote.MessageBatch{
			TypeNames: []string{"doorbuster.cluster.Batch"},
			Targets:   []*actor.PID{{Address: address, Id: wellKnown}},
			Envelopes: []*remote.MessageEnvelope{envelope},
		}
		change(b, envelope)
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}
	}
	return map[string]*remote.RemoteMessage{
		"good":            wrap(func(*remote.MessageBatch, *remote.MessageEnvelope) {}),
		"to another":      wrap(func(b *remote.MessageBatch, _ *remote.MessageEnvelope) { b.Targets[0].Address = "127.0.0.1:1" }),
		"type":            wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.TypeId = 7 }),
		"negative type":   wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.TypeId = -1 }),
		"target":          wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.Target = 1 }),
		"negative target": wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.Target = -1 }),
		"sender":          wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.Sender = 1 << 30 }),
		"serializer":      wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.SerializerId = 99 }),
		"JSON":            wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.SerializerId = 1 }),
		"unknown type":    wrap(func(b *remote.MessageBatch, _ *remote.MessageEnvelope) { b.TypeNames[0] = "nobody.Knows" }),
		"system message": wrap(func(b *remote.MessageBatch, e *remote.MessageEnvelope) {
			b.TypeNames[0], e.MessageData, b.Targets[0].Id = "actor.Stop", nil, "nobody"
		}),
		"terminated nobody": wrap(func(b *remote.MessageBatch, e *remote.MessageEnvelope) {
			b.TypeNames[0], e.MessageData = "actor.Terminated", nil
		}),
		"garbage": wrap(func(_ *remote.MessageBatch, e *remote.MessageEnvelope) { e.MessageData = []byte{0xff, 0xff} }),
		"no envelope": wrap(func(b *remote.MessageBatch, _ *remote.MessageEnvelope) {
			b.Targets, b.TypeNames = nil, nil
		}),
		"greeting": {MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{}}},
		"nothing":  {},
	}
}

// TestMalformedEnvelopes: a node survives what would end a process that has Proto.Actor's
// reader unprotected, and goes on serving.
func TestMalformedEnvelopes(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b")
	conn := dial(t, b)
	for name, message := range envelopes(b.cfg.Advertise) {
		text, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		throw(t, conn, text)
		if got := a.ask(t, "b", name, time.Minute).wait(); got.err != nil {
			t.Errorf("after %s: %v", name, got.err)
		}
	}
	// The calls that remote has not implemented panic as well.
	if _, err := remote.NewRemotingClient(conn).ListProcesses(t.Context(), &remote.ListProcessesRequest{}); err == nil {
		t.Error("there is an answer")
	}
	a.mustAsk(t, "b")
}

func TestDialable(t *testing.T) {
	for address, want := range map[string]bool{
		"node-1.example:7070": true, "10.0.0.1:1": true, "[::1]:65535": true, "node_1:80": true,
		"": false, ":80": false, "node": false, "node:": false, "node:http": false, "node:65536": false, "node:0": false, "a b:1": false, "%zz:1": false, "a/b:1": false,
	} {
		if dialable(address) != want {
			t.Errorf("%q: %v", address, !want)
		}
	}
}

func FuzzEnvelopes(f *testing.F) {
	a, b := pair(f)
	a.mustAsk(f, "b")
	conn := dial(f, b)
	for _, message := range envelopes(b.cfg.Advertise) {
		text, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		throw(t, conn, message)
		if got := a.ask(t, "b", "x", time.Minute).wait(); got.err != nil {
			t.Error(got.err)
		}
	})
}

// FuzzBatch throws batches at a peer that has a request in flight: it is answered at
// most once, and what is served is what fits together.
func FuzzBatch(f *testing.F) {
	for _, b := range []*batch.Batch{
		{Version: 1, From: "a", To: "b", Address: "a:1", Session: 2, Sequence: 1, Requests: &batch.Requests{Ids: []uint64{1, 2}, Left: []uint32{1, 0}, Sizes: []uint32{1, 2}, Bodies: []byte("abb")}},
		{Version: 1, From: "a", To: "b", Address: "a:1", Session: 2, Sequence: 3, Replies: &batch.Replies{Ids: []uint64{4, 5}, Outcomes: []uint32{0, 9}, Sizes: []uint32{1, 0}, Bodies: []byte("a")}},
		{Version: 1, From: "a", To: "b", Address: "a:1", Session: 1, Sequence: 2, Missing: 2, Pulse: &batch.Pulse{Ping: 1, Pong: 1}},
		{Version: 1, From: "a", To: "c", Address: "a:1"},
		{Version: 1, Address: "a:1", Stranger: "a"},
		{Version: 1, Address: "a:1", Ask: 1},
		{Version: 1, Address: "a:1", Told: 1, Member: []byte("{}")},
		{Version: 2, Address: "a:1"},
		{Version: 1},
	} {
		text, err := proto.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &batch.Batch{}
		if proto.Unmarshal(text, b) != nil {
			return
		}
		end := newBench("b", "a", 1_000_000)
		end.links.peers.Store(&map[string]*peer{"a": end.peer})
		end.serve = func(body []byte, _ int64, reply func([]byte)) { reply(body) }
		e := end.ask(t, "x", time.Second)
		end.take()
		for range 2 {
			end.links.receive(b)
			end.take()
		}
		end.end()
		e.wait()
	})
}
