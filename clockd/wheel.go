package clockd

import (
	"container/heap"
	"sync"
)

// Wheel holds one deadline per key and gives back the keys that are due, so
// that a node wakes only the actors that have something to do. Its methods may
// be called concurrently.
//
// It is a binary heap, not a ring of slots: a key's deadline is set some times
// an hour and not per order, so O(log n) costs nothing, and a heap treats a
// deadline in ten years, or a jump over ten years, like any other.
type Wheel struct {
	mu   sync.Mutex // guards keys and heap
	keys map[string]*deadline
	heap deadlines
}

// deadline is one key's place. Invariant: keys[key] == heap[index].
type deadline struct {
	key   string
	at    int64 // Unix ms
	index int
}

// NewWheel returns an empty wheel.
func NewWheel() *Wheel { return &Wheel{keys: make(map[string]*deadline)} }

// Set makes at (Unix ms, as in Snapshot.Wall) the only deadline of key.
func (w *Wheel) Set(key string, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.keys[key]
	switch {
	case !ok:
		d = &deadline{key: key, at: at}
		w.keys[key] = d
		heap.Push(&w.heap, d)
	case d.at != at:
		d.at = at
		heap.Fix(&w.heap, d.index)
	}
}

// Remove forgets the deadline of key, if it has one.
func (w *Wheel) Remove(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, ok := w.keys[key]; ok {
		heap.Remove(&w.heap, d.index)
		delete(w.keys, key)
	}
}

// Due removes each deadline that is at or before now (Unix ms) and calls fn
// with its key, earliest first. fn may use the wheel: what it sets is due at
// the next call of Due at the earliest.
func (w *Wheel) Due(now int64, fn func(key string)) {
	for _, d := range w.takeDue(now) {
		fn(d.key)
	}
}

func (w *Wheel) takeDue(now int64) (due []*deadline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.heap) > 0 && w.heap[0].at <= now {
		d := heap.Pop(&w.heap).(*deadline)
		delete(w.keys, d.key)
		due = append(due, d)
	}
	return due
}

// Len returns the number of deadlines.
func (w *Wheel) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.heap)
}

// deadlines implements heap.Interface.
type deadlines []*deadline

func (h deadlines) Len() int           { return len(h) }
func (h deadlines) Less(i, j int) bool { return h[i].at < h[j].at }

func (h deadlines) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *deadlines) Push(x any) {
	d := x.(*deadline)
	d.index = len(*h)
	*h = append(*h, d)
}

func (h *deadlines) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}
