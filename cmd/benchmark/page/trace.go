package page

import (
	"fmt"
	"slices"
	"text/template"
)

// Trace is one figure over time, with the straight line that fits it best.
type Trace struct {
	Label    string
	X, Y     []float64 // of equal length, not empty
	From, To float64   // the line at the first and at the last X
}

// Measures of a trace, in pixels.
const (
	traceTop    = 34
	traceHeight = 70
	traceStep   = 100
)

var tracePlot = template.Must(template.New("traces").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="14" font-weight="bold">{{html .Title}}</text>
{{range .Traces}}<text x="10" y="{{.Top}}" dy="14">{{html .Label}}</text><text x="212" y="{{.Top}}" dy="10" text-anchor="end">{{html .Most}}</text><text x="212" y="{{.Bottom}}" text-anchor="end">0</text>
<rect x="220" y="{{.Top}}" width="500" height="70" fill="none" stroke="#ddd"/><polyline fill="none" stroke="#2f6f8f" points="{{range .Points}}{{printf "%.1f,%.1f " .X .Y}}{{end}}"/><line x1="220" x2="720" y1="{{printf "%.1f" .FitFrom}}" y2="{{printf "%.1f" .FitTo}}" stroke="#b5483a" stroke-dasharray="4"/>
{{end}}</svg>
`))

// Traces draws figures below each other, each on a scale of its own that begins at 0.
func Traces(title string, traces ...Trace) ([]byte, error) {
	type spot struct{ X, Y float64 }
	type placed struct {
		Label, Most    string
		Top, Bottom    int
		Points         []spot
		FitFrom, FitTo float64
	}
	var all []placed
	for i, t := range traces {
		if len(t.X) == 0 || len(t.X) != len(t.Y) {
			return nil, fmt.Errorf("page: trace %q has %d times and %d values", t.Label, len(t.X), len(t.Y))
		}
		p := placed{Label: t.Label, Top: traceTop + i*traceStep, Bottom: traceTop + i*traceStep + traceHeight}
		top := niceAbove(max(slices.Max(t.Y), 1e-9))
		first, last := t.X[0], t.X[len(t.X)-1]
		height := func(y float64) float64 { return float64(p.Bottom) - traceHeight*y/top }
		for j, x := range t.X {
			p.Points = append(p.Points, spot{220 + 500*(x-first)/max(last-first, 1e-9), height(t.Y[j])})
		}
		p.FitFrom, p.FitTo = height(t.From), height(t.To)
		p.Most = fmt.Sprintf("%.4g", top)
		all = append(all, p)
	}
	return draw(tracePlot, map[string]any{"Title": title, "Width": Width, "Height": traceTop + len(traces)*traceStep, "Traces": all})
}
