package cluster

import (
	"bytes"
	"log/slog"
	"testing"
)

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
