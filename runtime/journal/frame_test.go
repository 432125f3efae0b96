package journal_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

func TestFramesRoundTrip(t *testing.T) {
	events := [][]byte{{}, []byte("x"), bytes.Repeat([]byte("y"), 127), bytes.Repeat([]byte("z"), 128), make([]byte, journal.EventMax)}
	var data []byte
	for _, e := range events {
		data = journal.AppendEvent(data, e)
	}
	if n, ok := journal.CountEvents(data); !ok || n != len(events) {
		t.Fatalf("CountEvents: %d %v", n, ok)
	}
	for i, want := range events {
		got, rest, ok := journal.CutEvent(data)
		if !ok || !bytes.Equal(got, want) {
			t.Fatalf("event %d: %d bytes, %v", i, len(got), ok)
		}
		data = rest
	}
	if _, _, ok := journal.CutEvent(data); ok {
		t.Fatal("an event was cut from nothing")
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"cut length":             {0x80},
		"cut event":              {2, 'x'},
		"length not in shortest": {0x81, 0x00, 'x'},
		"length beyond bound":    append([]byte{0x81, 0x80, 0x04}, make([]byte, journal.EventMax+1)...),
		"length overflows":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		if _, _, ok := journal.CutEvent(data); ok {
			t.Errorf("%s was accepted", name)
		}
		if _, ok := journal.CountEvents(data); ok {
			t.Errorf("%s was counted", name)
		}
	}
	if !panics(func() { journal.AppendEvent(nil, make([]byte, journal.EventMax+1)) }) {
		t.Error("an event beyond the bound was framed")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add(journal.AppendEvent(journal.AppendEvent(nil, []byte("one")), nil))
	f.Add([]byte{0x80, 0x01})
	f.Add([]byte{0x80, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, ok := journal.CountEvents(data)
		if !ok {
			return
		}
		var again []byte
		for rest := data; len(rest) > 0; n-- {
			var event []byte
			event, rest, ok = journal.CutEvent(rest)
			if !ok {
				t.Fatal("counted, but cannot be cut")
			}
			again = journal.AppendEvent(again, event)
		}
		if n != 0 || !bytes.Equal(again, data) {
			t.Fatalf("%x reads and writes as %x", data, again)
		}
	})
}

func TestCorruptErrorNamesWhatAndWhere(t *testing.T) {
	for want, err := range map[string]*journal.CorruptError{
		`journal: corrupt stream "deal" in /data: bad; restore`: {Stream: "deal", File: "/data", Detail: "bad", Remedy: "restore"},
		`journal: corrupt stream "deal": bad`:                   {Stream: "deal", Detail: "bad"},
		`journal: corrupt /data/1.log: bad`:                     {File: "/data/1.log", Detail: "bad"},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err.Error(), want)
		}
		if !errors.Is(err, journal.ErrCorrupt) || errors.Is(err, journal.ErrFenced) {
			t.Errorf("%v does not match ErrCorrupt alone", err)
		}
	}
}
