package deal

import "slices"

// columnChunk is how many elements lie together.
const columnChunk = 4096

// column is a list that grows at its end and may forget its beginning. Neither copies more
// than a chunk: a slice of a million orders, which doubles by copying them all, would hold
// up its deal for tens of milliseconds in the middle of the sale.
//
// Elements keep their index for good. A column of less than a chunk costs what a slice does.
type column[T any] struct {
	full []*[columnChunk]T // nil where all was forgotten
	last []T               // what follows them, less than a chunk
}

// len returns how many elements there were ever.
func (c *column[T]) len() int { return len(c.full)*columnChunk + len(c.last) }

// at returns element i, which must not have been forgotten.
func (c *column[T]) at(i int) *T { return &c.run(i, 1)[0] }

// run returns n elements from i on that were added together.
func (c *column[T]) run(i, n int) []T {
	if k := i / columnChunk; k < len(c.full) {
		return c.full[k][i%columnChunk:][:n:n]
	}
	return c.last[i-len(c.full)*columnChunk:][:n:n]
}

// add appends an element.
func (c *column[T]) add(v T) {
	c.begin()
	c.last = append(c.last, v)
	c.end()
}

// addRun appends elements, at most columnChunk, where they lie together, and returns the
// index of the first. If the last chunk has too little room, they begin a new one.
func (c *column[T]) addRun(run []T) int {
	if len(c.last)+len(run) > columnChunk {
		c.last = append(c.last, make([]T, columnChunk-len(c.last))...)
		c.end()
	}
	at := c.len()
	c.begin()
	c.last = append(c.last, run...)
	c.end()
	return at
}

// begin makes the room for all of a chunk at once if the ones before were full.
func (c *column[T]) begin() {
	if c.last == nil && len(c.full) > 0 {
		c.last = slices.Grow(c.last, columnChunk)
	}
}

func (c *column[T]) end() {
	if len(c.last) == columnChunk {
		c.full, c.last = append(c.full, (*[columnChunk]T)(c.last)), nil
	}
}

// forget gives back the memory of the chunks that lie wholly before element i. Nobody
// asks for these elements again.
func (c *column[T]) forget(i int) {
	for k := min(i/columnChunk, len(c.full)) - 1; k >= 0 && c.full[k] != nil; k-- {
		c.full[k] = nil
	}
}
