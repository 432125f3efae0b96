// Package progress shows how far a command is. On a terminal that is one line that
// is drawn anew several times a second. Elsewhere, in a file or the log of a CI job,
// it is a plain line now and then, and one at the end.
package progress

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	redraw     = 200 * time.Millisecond
	plainEvery = 10 * time.Second
	barWidth   = 20 // characters
)

// Terminal says whether somebody watches what is written to out.
func Terminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Show shows state until end is called, and then once more. What is done counts up to
// total, 0 if nobody knows. state is called by one goroutine at a time.
func Show(out io.Writer, clock *clockd.Clock, total int, state func() (done int, text string)) (end func()) {
	return show(out, clock, Terminal(out), total, state)
}

func show(out io.Writer, clock *clockd.Clock, terminal bool, total int, state func() (done int, text string)) (end func()) {
	draw, every := func() {
		_, text := state()
		fmt.Fprintln(out, text)
	}, plainEvery
	if terminal {
		draw, every = bar(out, total, state), redraw
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // not by clock.Every: out may block
		defer close(ended)
		for clock.Sleep(ctx, every) == nil {
			draw()
		}
	}()
	return func() {
		cancel()
		<-ended
		draw()
		if terminal {
			fmt.Fprintln(out)
		}
	}
}

// bar returns what draws a bar over the one that it drew before.
func bar(out io.Writer, total int, state func() (done int, text string)) (draw func()) {
	most := total
	if total == 0 {
		most = -1
	}
	b := progressbar.NewOptions(most,
		progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(barWidth),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetSpinnerChangeInterval(0)) // otherwise it draws by itself, too
	return func() {
		done, text := state()
		b.Describe(text)
		_ = b.Set(min(done, total)) // a terminal that is gone ends no work
	}
}
