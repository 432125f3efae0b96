package obs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	// LinesDefault is LogConfig.Lines if that is zero.
	LinesDefault = 4096
	// LineMax bounds a log line in bytes; a longer one is dropped.
	LineMax = 16 << 10
)

// LogConfig says what is logged, and where.
type LogConfig struct {
	Out    io.Writer    // written to by one goroutine, a line at a time
	Format string       // "text" (the default) or "json"
	Level  slog.Leveler // slog.LevelInfo if nil
	Lines  int          // that may wait for Out; LinesDefault if zero
	Clock  *clockd.Clock
}

func (c *LogConfig) validate() error {
	switch {
	case c.Out == nil || c.Clock == nil:
		return errors.New("obs: a log needs an Out and a Clock")
	case c.Format != "" && c.Format != "text" && c.Format != "json":
		return fmt.Errorf("obs: log format %q, want text or json", c.Format)
	case c.Lines < 0:
		return fmt.Errorf("obs: %d log lines", c.Lines)
	}
	if c.Lines == 0 {
		c.Lines = LinesDefault
	}
	return nil
}

// Log is a logger that never blocks its caller: when Out is slow and the queue
// is full, lines are dropped and counted. Secrets do not reach Out: attributes
// whose key names one are hidden, and so is whatever looks like a key of ours
// or a bearer token, wherever in a line it stands. The names of fields inside
// a logged struct or map are not looked at.
type Log struct {
	*slog.Logger
	queue   chan []byte
	drained chan struct{}
	dropped atomic.Uint64

	mu     sync.Mutex // guards closed, and queue against a send after its close
	closed bool
}

// NewLog starts the goroutine that writes the lines; Close ends it.
func NewLog(cfg LogConfig) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Log{queue: make(chan []byte, cfg.Lines), drained: make(chan struct{})}
	opts := &slog.HandlerOptions{Level: cfg.Level, ReplaceAttr: replaceAttr(cfg.Clock)}
	if cfg.Format == "json" {
		l.Logger = slog.New(slog.NewJSONHandler((*queueWriter)(l), opts))
	} else {
		l.Logger = slog.New(slog.NewTextHandler((*queueWriter)(l), opts))
	}
	go l.drain(cfg.Out)
	return l, nil
}

// Close writes what is queued and returns. Later lines are dropped.
func (l *Log) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.drained
}

// Dropped returns how many lines did not reach Out.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

func (l *Log) drain(out io.Writer) {
	defer close(l.drained)
	for line := range l.queue {
		if _, err := out.Write(hideSecrets(line)); err != nil {
			l.dropped.Add(1)
		}
	}
}

// queueWriter is where slog's handler writes each formatted line, in one call.
type queueWriter Log

func (w *queueWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(line) > LineMax {
		w.dropped.Add(1)
		return len(line), nil
	}
	select {
	case w.queue <- bytes.Clone(line): // the handler reuses line
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

var (
	hidden        = []byte("[hidden]")
	secretMarkers = [][]byte{[]byte("dbk_"), []byte("eyJ"), []byte("earer "), []byte("EARER ")}
	secretText    = regexp.MustCompile(`dbk_[\w-]+|eyJ[\w-]+\.[\w-]+\.[\w-]*|(?:[Bb]earer|BEARER) [\w.~+/=-]+`)
)

// hideSecrets looks for markers first: the expression alone costs some µs on
// every line, and hardly a line has a secret.
func hideSecrets(line []byte) []byte {
	for _, marker := range secretMarkers {
		if bytes.Contains(line, marker) {
			return secretText.ReplaceAll(line, hidden)
		}
	}
	return line
}

// secretKey tells whether an attribute of this name is to be hidden. A key is
// secret, but an idempotency key is not: support needs it to find an order.
func secretKey(key string) bool {
	key = strings.ToLower(key)
	for _, s := range []string{"authorization", "secret", "password", "passwd", "token", "cookie", "credential"} {
		if strings.Contains(key, s) {
			return true
		}
	}
	return strings.HasSuffix(key, "key") && !strings.HasPrefix(key, "idempotency")
}

// replaceAttr hides secrets by their key or a group's, and stamps each line
// with the clock that orders are stamped with.
func replaceAttr(clock *clockd.Clock) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Time(a.Key, time.UnixMilli(clock.Now().Wall).UTC())
		}
		for _, name := range append(groups[:len(groups):len(groups)], a.Key) {
			if secretKey(name) {
				return slog.String(a.Key, string(hidden))
			}
		}
		return a
	}
}
