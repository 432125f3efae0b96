// Package labtest runs what package lab is for in tests.
package labtest

import (
	"errors"
	"strconv"
	"testing"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
)

// Session runs a session, as short as a machine lets it be: one in which nothing was answered
// in the seconds that it was given runs again with four times as many, a minute at most.
func Session(t testing.TB, run func(seconds string) error) {
	t.Helper()
	for seconds := 1; ; seconds *= 4 {
		err := run(strconv.Itoa(seconds))
		if err == nil {
			return
		}
		if !errors.Is(err, lab.ErrNoAnswers) || seconds > 16 {
			t.Fatalf("%v, with rounds of %d s", err, seconds)
		}
	}
}
