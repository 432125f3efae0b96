package reprice

import (
	"context"
	"errors"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// Pace bounds the CPU that evaluations take from a live server which no order waits
// for. Those that share one take turns: one slice at a time, and after it everybody
// rests so long that all slices together use at most the given share of one core.
type Pace struct {
	clock   *clockd.Clock
	percent int64
	turn    chan struct{} // holds one; whoever has put it in works or rests
}

// NewPace returns a pace of 1 to 100 percent of one core.
func NewPace(clock *clockd.Clock, percent int) (*Pace, error) {
	if percent < 1 || percent > 100 {
		return nil, errors.New("reprice: a pace must be 1 to 100 percent of a core")
	}
	return &Pace{clock: clock, percent: int64(percent), turn: make(chan struct{}, 1)}, nil
}

// Slice waits for its turn and works. The rest begins when it returns, and whoever
// is next waits for its end. It returns the error of work, or the context's end. A
// nil pace does not wait.
func (p *Pace) Slice(ctx context.Context, work func() error) error {
	if p == nil {
		return work()
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	begin := clockd.Mono()
	defer func() {
		rest := (clockd.Mono() - begin) * (100 - p.percent) / p.percent
		if rest <= 0 {
			<-p.turn
			return
		}
		p.clock.AfterFunc(time.Duration(rest), func() { <-p.turn })
	}()
	return work()
}
