package page

import (
	"bytes"
	"fmt"
	"math"
	"text/template"
)

// Group is a cluster of bars that share a scale with the other groups.
type Group struct {
	Label string
	Bars  []Bar
}

// Bar is one value.
type Bar struct {
	Label string
	Value float64
	Text  string // the value as the table shows it
}

// Measures of the plots, in pixels.
const (
	Width = 760 // of every plot

	barsLeft  = 220 // where bars begin
	barsSpan  = 420 // of the longest bar
	barHeight = 18
	barStep   = 22
	groupGap  = 26
	barsTop   = 34

	curveLeft, curveRight = 70, 720
	curveTop, curveBottom = 60, 300
	curveHeight           = 340
)

// The last of several is always what we build. The colours before it are ones
// that the colour-blind can tell from it.
const colorOurs = "#2f6f8f"

var colorsOfOthers = []string{"#b5483a", "#d9a441", "#6b7f3a", "#8a6bb0", "#7a7a7a"}

func color(i, n int) string {
	if i == n-1 {
		return colorOurs
	}
	return colorsOfOthers[i%len(colorsOfOthers)]
}

var barPlot = template.Must(template.New("bars").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="14" font-weight="bold">{{html .Title}}</text>
{{range .Labels}}<text x="10" y="{{.Y}}" font-weight="bold">{{html .Text}}</text>
{{end}}{{range .Bars}}<text x="212" y="{{.TextY}}" text-anchor="end">{{html .Label}}</text><rect x="220" y="{{.Y}}" width="{{printf "%.1f" .Length}}" height="18" fill="{{.Color}}"/><text x="{{printf "%.1f" .End}}" y="{{.TextY}}">{{html .Text}}</text>
{{end}}</svg>
`))

// Bars draws groups of bars. The last bar of a group is our own.
func Bars(title string, groups ...Group) ([]byte, error) {
	type placed struct {
		Y, TextY    int
		Length, End float64
		Label, Text string
		Color       string
	}
	longest := 0.0
	for _, g := range groups {
		for _, b := range g.Bars {
			longest = max(longest, b.Value)
		}
	}
	var labels, bars []placed
	y := barsTop
	for _, g := range groups {
		labels = append(labels, placed{Y: y + 12, Text: g.Label})
		y += barHeight
		for i, b := range g.Bars {
			length := 0.0
			if longest > 0 {
				length = b.Value / longest * barsSpan
			}
			bars = append(bars, placed{
				Y: y, TextY: y + 13, Length: length, End: barsLeft + length + 6,
				Label: b.Label, Text: b.Text, Color: color(i, len(g.Bars)),
			})
			y += barStep
		}
		y += groupGap - barHeight
	}
	return draw(barPlot, map[string]any{"Title": title, "Width": Width, "Height": y + 6, "Labels": labels, "Bars": bars})
}

// Point is a latency at a percentile.
type Point struct {
	Percentile float64 // 0 … 100
	Millis     float64
}

var percentilePlot = template.Must(template.New("percentiles").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="14" font-weight="bold">{{html .Title}}</text>
<text x="10" y="44">ms</text>
{{range .Rows}}<line x1="70" x2="720" y1="{{printf "%.1f" .At}}" y2="{{printf "%.1f" .At}}" stroke="#ddd"/><text x="62" y="{{printf "%.1f" .At}}" dy="4" text-anchor="end">{{.Text}}</text>
{{end}}{{range .Columns}}<line x1="{{printf "%.1f" .At}}" x2="{{printf "%.1f" .At}}" y1="60" y2="300" stroke="#ddd"/><text x="{{printf "%.1f" .At}}" y="320" text-anchor="middle">{{.Text}}</text>
{{end}}<polyline fill="none" stroke="#2f6f8f" stroke-width="2" points="{{range .Points}}{{printf "%.1f,%.1f " .X .Y}}{{end}}"/>
</svg>
`))

// Percentiles draws a distribution of latencies: from left to right each nine
// takes the same width, up to the last column that has a point.
func Percentiles(title string, points []Point) ([]byte, error) {
	type tick struct {
		At   float64
		Text string
	}
	type spot struct{ X, Y float64 }
	nines, most := 1.0, 1.0
	for _, p := range points {
		if p.Percentile < 100 {
			nines = max(nines, math.Ceil(ninesOf(p.Percentile)-1e-9))
		}
		most = max(most, p.Millis)
	}
	top := niceAbove(most)
	x := func(percentile float64) float64 {
		return curveLeft + (curveRight-curveLeft)*min(ninesOf(percentile)/nines, 1)
	}
	y := func(millis float64) float64 { return curveBottom - (curveBottom-curveTop)*millis/top }
	columns := []tick{{curveLeft, "P0"}}
	for n := 1.0; n <= nines; n++ {
		percentile := 100 * (1 - math.Pow(10, -n))
		columns = append(columns, tick{x(percentile), fmt.Sprintf("P%.*f", int(max(0, n-2)), percentile)})
	}
	var rows []tick
	for i := range 5 {
		rows = append(rows, tick{y(top * float64(i) / 4), fmt.Sprintf("%.3g", top*float64(i)/4)})
	}
	line := make([]spot, len(points))
	for i, p := range points {
		line[i] = spot{x(p.Percentile), y(p.Millis)}
	}
	return draw(percentilePlot, map[string]any{
		"Title": title, "Width": Width, "Height": curveHeight, "Columns": columns, "Rows": rows, "Points": line,
	})
}

// ninesOf is 1 for P90, 2 for P99, 3 for P99.9.
func ninesOf(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

// niceAbove returns 1, 2, 4 or 8 times a power of ten that is at least v.
func niceAbove(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, factor := range []float64{1, 2, 4, 8} {
		if factor*power >= v {
			return factor * power
		}
	}
	return 10 * power
}

func draw(shape *template.Template, data any) ([]byte, error) {
	var svg bytes.Buffer
	err := shape.Execute(&svg, data)
	return svg.Bytes(), err
}
