package journal

import (
	"encoding/binary"
	"fmt"
)

// AppendEvent frames one event for Write.Data: its length as an unsigned varint,
// then its bytes.
func AppendEvent(dst, event []byte) []byte {
	if len(event) > EventMax {
		panic(fmt.Sprintf("journal: event of %d bytes, at most %d are allowed", len(event), EventMax))
	}
	dst = binary.AppendUvarint(dst, uint64(len(event)))
	return append(dst, event...)
}

// CutEvent takes the first event off framed data. ok is false if data does not
// begin with a whole frame; the length must be in its shortest form, so that there
// is one encoding of each sequence of events.
func CutEvent(data []byte) (event, rest []byte, ok bool) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > EventMax || size > uint64(len(data)-n) || (n > 1 && data[n-1] == 0) {
		return nil, nil, false
	}
	end := n + int(size)
	return data[n:end:end], data[end:], true
}

// CountEvents returns the number of events in framed data; ok is false if it does
// not consist of whole frames.
func CountEvents(data []byte) (count int, ok bool) {
	for len(data) > 0 {
		if _, data, ok = CutEvent(data); !ok {
			return 0, false
		}
		count++
	}
	return count, true
}
