package reprice

import (
	"context"
	"errors"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// Pace bounds the CPU that backtests take from a live server. Those that share
// one take turns: one slice at a time, and after it everybody rests so long that
// all slices together use at most the given share of one core.
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

// slice waits for its turn, works, and rests.
func (p *Pace) slice(ctx context.Context, work func() error) error {
	if p == nil {
		return work()
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	begin := clockd.Mono()
	err := work()
	if rest := (clockd.Mono() - begin) * (100 - p.percent) / p.percent; err == nil && rest > 0 {
		err = p.clock.Sleep(ctx, time.Duration(rest))
	}
	return err
}
