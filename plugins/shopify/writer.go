package shopify

// Results of the writing functions of the Shopify Function API.
const (
	writeOK             = 0
	writeExpectedKey    = 2
	writeObjectLength   = 3
	writeAlreadyWritten = 4
	writeNotAnObject    = 5
	writeNotFinished    = 6
	writeArrayLength    = 7
	writeNotAnArray     = 8
)

// writer builds the document that a function writes value by value. A function
// says in advance how many elements or pairs an array or object has.
type writer struct {
	d     document
	open  []opened
	done  bool
	bytes int // of the document as MessagePack
}

// opened is an array or object that has not been finished.
type opened struct {
	at, length, written int // for an object keys and values count
}

func (w *writer) reset() {
	w.d.reset()
	w.open, w.done, w.bytes = w.open[:0], false, 0
}

// accept says whether a value can come next, and counts it.
func (w *writer) accept(isText bool) uint32 {
	if w.done {
		return writeAlreadyWritten
	}
	if len(w.open) == 0 {
		return writeOK
	}
	top := &w.open[len(w.open)-1]
	switch isObject := w.d.nodes[top.at].kind == object; {
	case !isObject && top.written >= top.length:
		return writeArrayLength
	case isObject && isText && top.written/2 >= top.length:
		return writeObjectLength
	case isObject && !isText && top.written%2 == 0:
		return writeExpectedKey
	}
	top.written++
	return writeOK
}

// scalar accepts a value that is written at once, of the given size.
func (w *writer) scalar(isText bool, bytes int) uint32 {
	result := w.accept(isText)
	if result == writeOK {
		w.bytes += bytes
		w.done = len(w.open) == 0
	}
	return result
}

func (w *writer) begin(k kind, length uint32) uint32 {
	result := w.accept(false)
	if result == writeOK {
		w.bytes += len(appendLength(nil, length, 0, 15, mpArray16, false))
		w.open = append(w.open, opened{at: w.d.open(k), length: int(length)})
	}
	return result
}

func (w *writer) finish(k kind) uint32 {
	wrong, short, per := uint32(writeNotAnArray), uint32(writeArrayLength), 1
	if k == object {
		wrong, short, per = writeNotAnObject, writeObjectLength, 2
	}
	if len(w.open) == 0 {
		return wrong
	}
	top := w.open[len(w.open)-1]
	switch {
	case w.d.nodes[top.at].kind != k:
		return wrong
	case top.written != top.length*per:
		return short
	}
	w.d.close(top.at)
	w.open = w.open[:len(w.open)-1]
	w.done = len(w.open) == 0
	return writeOK
}
