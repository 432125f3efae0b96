package page

import (
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Median sorts the values, of which there is one at least, and returns the middle one,
// or the mean of the two.
func Median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// Notch is half the width of the interval in which the median lies with 95 %
// certainty: 1.57 times the spread of the middle half, over the root of how many
// values there are (McGill, Tukey and Larsen 1978, the notches of a box plot). One
// round that was disturbed does not widen it, and more rounds narrow it. It sorts
// the values, of which there is one at least.
func Notch(values []float64) float64 {
	slices.Sort(values)
	return 1.57 * (quantile(values, 0.75) - quantile(values, 0.25)) / math.Sqrt(float64(len(values)))
}

// quantile interpolates between the sorted values on both sides of q, 0 to 1.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Millis is what tables show of a duration.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// LoadAverage is the machine's load over 1, 5 and 15 minutes, "unknown" where nobody
// tells.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}
