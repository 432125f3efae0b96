package deal

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// kept returns how many chunks are in memory.
func (c *column[T]) kept() int {
	n := len(c.full) - countNil(c.full)
	if c.last != nil {
		n++
	}
	return n
}

func countNil[T any](list []*T) (n int) {
	for _, p := range list {
		if p == nil {
			n++
		}
	}
	return n
}

// TestColumn holds a column against the runs that were added to it.
func TestColumn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type run struct {
			at     int
			values []int32
		}
		var (
			column column[int32]
			runs   []run
			next   int32
		)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 2*columnChunk).Draw(t, "n") {
					next++
					runs = append(runs, run{column.len(), []int32{next}})
					column.add(next)
				}
			},
			"add a run": func(t *rapid.T) {
				values := make([]int32, rapid.IntRange(0, columnChunk).Draw(t, "n"))
				for i := range values {
					next++
					values[i] = next
				}
				runs = append(runs, run{column.addRun(values), values})
			},
			"forget": func(t *rapid.T) {
				n := rapid.IntRange(0, len(runs)).Draw(t, "runs")
				if n == 0 {
					return
				}
				column.forget(runs[n-1].at + len(runs[n-1].values))
				runs = runs[n:]
			},
			"": func(t *rapid.T) {
				for _, r := range runs {
					if got := column.run(r.at, len(r.values)); !slices.Equal(got, r.values) {
						t.Fatalf("at %d are %v, not %v", r.at, got, r.values)
					}
				}
				if len(runs) == 0 && column.kept() > 2 {
					t.Fatalf("%d chunks for nothing", column.kept())
				}
			},
		})
	})
}

// TestColumnGrowsByChunks: an element that is added moves none of those in full chunks.
func TestColumnGrowsByChunks(t *testing.T) {
	var c column[order]
	for range columnChunk {
		c.add(order{})
	}
	first, last := c.at(0), c.at(columnChunk-1)
	for range 10 * columnChunk {
		c.add(order{})
	}
	if c.at(0) != first || c.at(columnChunk-1) != last {
		t.Error("a full chunk was copied")
	}
	if perChunk := testing.AllocsPerRun(10, func() {
		for range columnChunk {
			c.add(order{})
		}
	}); perChunk > 2 {
		t.Errorf("%v allocations a chunk", perChunk)
	}
}
