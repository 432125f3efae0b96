package rule

import (
	"bytes"
	"fmt"
	"html"
)

// Measures of the drawing, in its own units.
const (
	barWidth    = 18
	chartHeight = 160
	chartMargin = 40
	chartGap    = 60
)

// Colours: what was, and what the candidate does.
const (
	colourRecorded  = "#9aa5b1"
	colourCandidate = "#2563eb"
)

// chart is one histogram: a group of bars for each bucket.
type chart struct {
	title   string
	buckets []bucket
	series  []func(*bucket) uint64
	colours []string
}

// histograms draws how orders change, and how discounts are spread, as SVG.
func (s *summary) histograms() []byte {
	charts := []chart{
		{
			title: fmt.Sprintf("%s version %d, %s of %s: change of what the shopper pays, %% of the subtotal",
				s.RuleID, s.Version, orders(s.Orders), s.DealID),
			buckets: s.Distribution.Change,
			series:  []func(*bucket) uint64{func(b *bucket) uint64 { return b.Orders }},
			colours: []string{colourCandidate},
		},
		{
			title:   "Discount, % of the subtotal: recorded (grey), candidate (blue)",
			buckets: s.Distribution.Discount,
			series: []func(*bucket) uint64{
				func(b *bucket) uint64 { return b.Recorded }, func(b *bucket) uint64 { return b.Candidate },
			},
			colours: []string{colourRecorded, colourCandidate},
		},
	}
	width := 0
	for i := range charts {
		width = max(width, 2*chartMargin+len(charts[i].buckets)*charts[i].step())
	}
	height := len(charts) * (chartHeight + chartGap + chartMargin)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for i := range charts {
		charts[i].draw(&b, chartMargin+i*(chartHeight+chartGap+chartMargin))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// step is the width of a bucket.
func (c *chart) step() int { return barWidth*len(c.series) + 4 }

// draw draws the chart below top. The tallest bar has the chart's height.
func (c *chart) draw(out *bytes.Buffer, top int) {
	most := uint64(1)
	for i := range c.buckets {
		for _, value := range c.series {
			most = max(most, value(&c.buckets[i]))
		}
	}
	base := top + chartHeight
	fmt.Fprintf(out, `<text x="%d" y="%d" font-size="13">%s</text>`+"\n", chartMargin, top-14, html.EscapeString(c.title))
	fmt.Fprintf(out, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="black"/>`+"\n", chartMargin, base, chartMargin+len(c.buckets)*c.step(), base)
	for i := range c.buckets {
		x := chartMargin + i*c.step()
		for n, value := range c.series {
			count := value(&c.buckets[i])
			if count == 0 {
				continue
			}
			height := max(float64(chartHeight)*float64(count)/float64(most), 1)
			left := x + n*barWidth
			fmt.Fprintf(out, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s"><title>%d</title></rect>`+"\n",
				left, float64(base)-height, barWidth, height, c.colours[n], count)
			fmt.Fprintf(out, `<text x="%d" y="%.1f" font-size="9" text-anchor="middle">%d</text>`+"\n", left+barWidth/2, float64(base)-height-3, count)
		}
		fmt.Fprintf(out, `<text x="%d" y="%d" font-size="9" text-anchor="end" transform="rotate(-60 %d %d)">%s</text>`+"\n",
			x+c.step()/2, base+12, x+c.step()/2, base+12, c.buckets[i].axis())
	}
}

// axis is the bucket on the axis.
func (b *bucket) axis() string {
	if b.From == b.To {
		return "0"
	}
	return fmt.Sprintf("%d…%d", b.From, b.To)
}
