package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// group is a cluster of bars that share a scale with the other groups.
type group struct {
	label string
	bars  []bar
}

type bar struct {
	label string
	value float64
	text  string // the value as the table shows it
}

// Measures of a bar plot, in pixels.
const (
	plotWidth  = 760
	plotLeft   = 220 // where bars begin
	plotSpan   = 420 // of the longest bar
	barHeight  = 18
	barStep    = 22
	groupGap   = 26
	plotTop    = 34
	columnsTop = 50  // of a timeline
	columnsMax = 120 // height of the tallest column
)

// The last bar of a group is always "as it is"; what comes before it has colours
// that the colour-blind can tell from it.
const colorAsItIs = "#2f6f8f"

var colorsAsItWas = []string{"#b5483a", "#d9a441", "#6b7f3a"}

func (g group) color(i int) string {
	if i == len(g.bars)-1 {
		return colorAsItIs
	}
	return colorsAsItWas[i%len(colorsAsItWas)]
}

var barPlot = template.Must(template.New("bars").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="14" font-weight="bold">{{html .Title}}</text>
{{range .Labels}}<text x="10" y="{{.Y}}" font-weight="bold">{{html .Text}}</text>
{{end}}{{range .Bars}}<text x="212" y="{{.TextY}}" text-anchor="end">{{html .Label}}</text><rect x="220" y="{{.Y}}" width="{{printf "%.1f" .Length}}" height="18" fill="{{.Color}}"/><text x="{{printf "%.1f" .End}}" y="{{.TextY}}">{{html .Text}}</text>
{{end}}</svg>
`))

// plot writes a bar plot beside the page and returns the Markdown that shows
// it: nothing if there is no page.
func (s *session) plot(name, title string, groups ...group) (string, error) {
	type placed struct {
		Y, TextY    int
		Length, End float64
		Label, Text string
		Color       string
	}
	longest := 0.0
	for _, g := range groups {
		for _, b := range g.bars {
			longest = max(longest, b.value)
		}
	}
	var labels, bars []placed
	y := plotTop
	for _, g := range groups {
		labels = append(labels, placed{Y: y + 12, Text: g.label})
		y += barHeight
		for i, b := range g.bars {
			length := 0.0
			if longest > 0 {
				length = b.value / longest * plotSpan
			}
			bars = append(bars, placed{
				Y: y, TextY: y + 13, Length: length, End: plotLeft + length + 6,
				Label: b.label, Text: b.text, Color: g.color(i),
			})
			y += barStep
		}
		y += groupGap - barHeight
	}
	return s.draw(name, title, barPlot, map[string]any{
		"Title": title, "Width": plotWidth, "Height": y + 6, "Labels": labels, "Bars": bars,
	})
}

var timelinePlot = template.Must(template.New("timeline").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="230" viewBox="0 0 {{.Width}} 230" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="14" font-weight="bold">{{html .Title}}</text>
<text x="10" y="38" fill="#b5483a">▮ Gets that found the pool empty, at most {{.Most}} a column</text><text x="430" y="38" fill="#2f6f8f">▏a collection begins</text>
{{range .Marks}}<line x1="{{printf "%.1f" .}}" x2="{{printf "%.1f" .}}" y1="50" y2="182" stroke="#2f6f8f" stroke-width="1"/>
{{end}}{{range .Columns}}<rect x="{{printf "%.1f" .X}}" y="{{printf "%.1f" .Y}}" width="5" height="{{printf "%.1f" .Height}}" fill="#b5483a"/>
{{end}}<line x1="20" x2="740" y1="170" y2="170" stroke="#333"/>
<text x="20" y="205">0</text><text x="740" y="205" text-anchor="end">{{printf "%.0f" .Millis}} ms</text>
</svg>
`))

// timeline writes a plot of counts over a stretch of time with marks in it.
// marks are fractions of the stretch.
func (s *session) timeline(name, title string, millis float64, counts []int, marks []float64) (string, error) {
	const left, span = 20.0, 720.0
	type column struct{ X, Y, Height float64 }
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	var columns []column
	for i, n := range counts {
		height := float64(n) / float64(most) * columnsMax
		columns = append(columns, column{left + span*float64(i)/float64(len(counts)), columnsTop + columnsMax - height, height})
	}
	lines := make([]float64, len(marks))
	for i, m := range marks {
		lines[i] = left + span*m
	}
	return s.draw(name, title, timelinePlot, map[string]any{
		"Title": title, "Width": plotWidth, "Most": most, "Millis": millis, "Columns": columns, "Marks": lines,
	})
}

func (s *session) draw(name, title string, shape *template.Template, data any) (string, error) {
	if s.docs == "" {
		return "", nil
	}
	var svg bytes.Buffer
	if err := shape.Execute(&svg, data); err != nil {
		return "", err
	}
	dir := filepath.Join(s.docs, plotsDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := name + ".svg"
	return fmt.Sprintf("\n![%s](%s/%s)\n", title, plotsDir, file), os.WriteFile(filepath.Join(dir, file), svg.Bytes(), 0o644)
}
