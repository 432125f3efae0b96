package obs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/clockd"
)

// noon is 2026-11-22T12:00:00Z in Unix ms.
const noon = 1_795_348_800_000

func newLog(t testing.TB, cfg LogConfig) *Log {
	t.Helper()
	cfg.Clock = clockd.NewManual(noon).Clock()
	l, err := NewLog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestLogLine(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, LogConfig{Out: &out, Format: "json"})
	l.Debug("not at this level")
	l.With("request_id", "r-1").Info("reserved", "deal_id", "d-1", "quantity", 2)
	l.Close()
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	want := map[string]any{
		"time": "2026-11-22T12:00:00Z", "level": "INFO", "msg": "reserved",
		"request_id": "r-1", "deal_id": "d-1", "quantity": 2.0,
	}
	for k, v := range want {
		if line[k] != v {
			t.Errorf("%s = %v, want %v", k, line[k], v)
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			l := newLog(t, LogConfig{Out: &out, Format: format})
			l.Info("key dbk_merchant_1_S3CRET refused",
				"Authorization", "S3CRET", "client_secret", "S3CRET", "password", "S3CRET",
				"key", "S3CRET", "private_key", "S3CRET", "apiKey", "S3CRET", "token", 1234567,
				"err", errors.New("no such key: dbk_operator_2_S3CRET"),
				"header", "Bearer S3CRET", "upper", "BEARER S3CRET", "jwt", "eyJhbGci.eyJzdWIi.S3CRET",
				"keys", []string{"dbk_shopper_3_S3CRET-x"},
				slog.Group("cookies", "session", "S3CRET"),
				slog.Group("http", "set-cookie", "S3CRET", "path", "/api/v1/orders"),
				"idempotency_key", "k-1", "deal_id", "d-1")
			l.With("secret", "S3CRET").WithGroup("token").Info("x", "value", "S3CRET")
			l.Close()
			got := out.String()
			if strings.Contains(got, "S3CRET") || strings.Contains(got, "1234567") {
				t.Errorf("a secret got out:\n%s", got)
			}
			for _, kept := range []string{"k-1", "d-1", "/api/v1/orders", "no such key"} {
				if !strings.Contains(got, kept) {
					t.Errorf("%q is hidden:\n%s", kept, got)
				}
			}
		})
	}
}

// stuckWriter blocks until it is released.
type stuckWriter struct {
	entered, release chan struct{}
	bytes.Buffer
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	w.entered <- struct{}{}
	<-w.release
	return w.Buffer.Write(p)
}

func TestStuckWriterBlocksNobody(t *testing.T) {
	const lines = 8
	out := &stuckWriter{entered: make(chan struct{}, 2*lines), release: make(chan struct{})}
	l := newLog(t, LogConfig{Out: out, Lines: lines})
	l.Info("stuck")
	<-out.entered
	for range lines + 5 {
		l.Info("queued or dropped")
	}
	if n := l.Dropped(); n != 5 {
		t.Fatalf("%d dropped, want 5", n)
	}
	close(out.release)
	l.Close()
	if n := strings.Count(out.String(), "\n"); n != 1+lines {
		t.Fatalf("%d lines written, want %d", n, 1+lines)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLinesThatAreLostAreCounted(t *testing.T) {
	l := newLog(t, LogConfig{Out: brokenWriter{}})
	l.Info("lost")
	l.Close()
	l.Info("after Close")
	if n := l.Dropped(); n != 2 {
		t.Fatalf("%d dropped, want 2", n)
	}
}

func TestOverlongLineIsDropped(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, LogConfig{Out: &out})
	l.Info(strings.Repeat("x", LineMax))
	l.Close()
	if l.Dropped() != 1 || out.Len() != 0 {
		t.Fatalf("%d dropped and %d bytes written, want 1 and 0", l.Dropped(), out.Len())
	}
}

func TestCloseRacesLogging(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, LogConfig{Out: &out, Lines: 10_000})
	const loggers, each = 4, 500
	var wg sync.WaitGroup
	for range loggers {
		wg.Go(func() {
			for range each {
				l.Info("line")
			}
		})
	}
	l.Close()
	wg.Wait()
	if n := strings.Count(out.String(), "\n") + int(l.Dropped()); n != loggers*each {
		t.Fatalf("%d lines written or counted as dropped, want %d", n, loggers*each)
	}
}

func TestLogConfigIsValidated(t *testing.T) {
	clock := clockd.NewManual(noon).Clock()
	for _, cfg := range []LogConfig{
		{Clock: clock},
		{Out: io.Discard},
		{Out: io.Discard, Clock: clock, Format: "xml"},
		{Out: io.Discard, Clock: clock, Lines: -1},
	} {
		if _, err := NewLog(cfg); err == nil {
			t.Errorf("NewLog(%+v) succeeded", cfg)
		}
	}
}

func BenchmarkLogBelowLevel(b *testing.B) {
	l := newLog(b, LogConfig{Out: io.Discard})
	b.ReportAllocs()
	for b.Loop() {
		l.Debug("order", "deal_id", "d-1")
	}
}

func BenchmarkLog(b *testing.B) {
	l := newLog(b, LogConfig{Out: io.Discard})
	b.ReportAllocs()
	for b.Loop() {
		l.Info("order", "request_id", "r-1", "deal_id", "d-1")
	}
}
