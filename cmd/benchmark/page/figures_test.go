package page

import (
	"math"
	"regexp"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 100, 2}, 3}} {
		if got := Median(c.values); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
	// The middle half of nine values spans four of them.
	if got, want := Notch([]float64{9, 1, 2, 8, 3, 7, 4, 6, 5}), 1.57*4/3; math.Abs(got-want) > 1e-9 {
		t.Errorf("notch %v, want %v", got, want)
	}
	if got := Notch([]float64{7}); got != 0 {
		t.Errorf("notch of one value: %v", got)
	}
	if got := Millis(1500 * time.Microsecond); got != 1.5 {
		t.Error(got)
	}
	if got := LoadAverage(); !regexp.MustCompile(`^[0-9.]+ [0-9.]+ [0-9.]+$`).MatchString(got) {
		t.Errorf("load %q", got)
	}
}
