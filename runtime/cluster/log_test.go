package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// TestMembersAreLogged: whoever reads a node's log sees who else was there.
func TestMembersAreLogged(t *testing.T) {
	var out bytes.Buffer
	c, err := New(Config{Registry: newDesk(), Clock: ticking(t), Advertise: "127.0.0.1:1", Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c.handler = make(diary, 3)
	view := []Member{{ID: "1", Address: "127.0.0.1:1"}, {ID: "2", Address: "127.0.0.1:2", Leaving: true}}
	for range 2 { // the second one says nothing new
		c.tell(newTopology(c.Topology().Version+1, view, "1"), false)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `count=2 addresses="[127.0.0.1:1 127.0.0.1:2 leaves]"`) {
		t.Errorf("it says %s", got)
	}
	c.tell(newTopology(c.Topology().Version+1, nil, ""), true)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestSilenceOfALeaver: a member that said that it goes is not reported when it has gone.
func TestSilenceOfALeaver(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		var out bytes.Buffer
		cfg := &Config{Clock: ticking(t), Logger: slog.New(slog.NewTextHandler(&out, nil))}
		l := newLinks(cfg, actor.NewActorSystem(), func() Member { return Member{} }, func() bool { return true })
		l.changed(newTopology(1, []Member{{ID: "2", Address: "127.0.0.1:2", Leaving: leaving}}, ""))
		l.giveUp((*l.peers.Load())["2"])
		if warned := strings.Contains(out.String(), "does not answer"); warned == leaving {
			t.Errorf("leaving %v: it says %q", leaving, &out)
		}
	}
}

// TestProtoActorIsOrdinary lets Proto.Actor shout, with attributes and without.
func TestProtoActorIsOrdinary(t *testing.T) {
	for level, heard := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var out bytes.Buffer
		logger := slog.New(ordinary{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})})
		logger.Error("lost")
		logger.With("address", "a").WithGroup("g").Error("lost again")
		if got := bytes.Count(out.Bytes(), []byte("level=DEBUG")) == 2; got != heard {
			t.Errorf("at %v: %q", level, out.String())
		}
	}
}
