package deal

import (
	"bytes"
	"strconv"
)

// An order is named by its deal and the seq of its event, a group by its deal
// and the seq of the order that opened it, so that finding either needs no
// index: "d-1001-42" is order 42 of deal "d-1001", "d-1001-g42" the group it
// opened.

// MaxOrderIDLen bounds an order's or a group's id in bytes.
const MaxOrderIDLen = MaxIDLen + len("-g") + 20

// AppendOrderID appends the id of the order whose event is seq.
func AppendOrderID[T string | []byte](dst []byte, deal T, seq uint64) []byte {
	return strconv.AppendUint(append(append(dst, deal...), '-'), seq, 10)
}

// AppendGroupID appends the id of the group that order seq opened.
func AppendGroupID[T string | []byte](dst []byte, deal T, seq uint64) []byte {
	return strconv.AppendUint(append(append(dst, deal...), "-g"...), seq, 10)
}

// ParseOrderID splits an order's id. False: it is none.
func ParseOrderID(id []byte) (deal []byte, seq uint64, ok bool) { return parseID(id, "-") }

// ParseGroupID splits a group's id. False: it is none.
func ParseGroupID(id []byte) (deal []byte, seq uint64, ok bool) { return parseID(id, "-g") }

func parseID(id []byte, sep string) (deal []byte, seq uint64, ok bool) {
	i := bytes.LastIndex(id, []byte(sep))
	if i < 0 || len(id) > MaxOrderIDLen || !ValidID(id[:i]) {
		return nil, 0, false
	}
	digits := id[i+len(sep):]
	if len(digits) == 0 || digits[0] == '0' { // one spelling an id
		return nil, 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' || seq > (1<<63)/10 {
			return nil, 0, false
		}
		seq = seq*10 + uint64(c-'0')
	}
	return id[:i], seq, true
}
