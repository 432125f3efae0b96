package page

import (
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
