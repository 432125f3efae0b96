package main

import (
	"bytes"
	"text/template"

	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

// Measures of a timeline, in pixels.
const (
	columnsTop = 50
	columnsMax = 120 // height of the tallest column
)

// plot writes a bar plot beside the page and returns the Markdown that shows
// it: nothing if there is no page. The last bar of a group is "as it is".
func (s *session) plot(name, title string, groups ...page.Group) (string, error) {
	if s.docs == "" {
		return "", nil
	}
	svg, err := page.Bars(title, groups...)
	if err != nil {
		return "", err
	}
	return page.WritePlot(s.page(), name, title, svg)
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
	if s.docs == "" {
		return "", nil
	}
	var svg bytes.Buffer
	err := timelinePlot.Execute(&svg, map[string]any{
		"Title": title, "Width": page.Width, "Most": most, "Millis": millis, "Columns": columns, "Marks": lines,
	})
	if err != nil {
		return "", err
	}
	return page.WritePlot(s.page(), name, title, svg.Bytes())
}
