package deal

import (
	"bytes"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// An order is named by its deal and the seq of its event, a group by its deal
// and the seq of the order that opened it, so that finding either needs no
// index: "d-1001-42" is order 42 of deal "d-1001", "d-1001-g42" the group it
// opened. All ids fit MaxIDLen, so a deal with a long one has a shorter name in
// the ids of what belongs to it.

// MaxNameLen leaves room for "-g" and the 20 digits of any seq. A name that stands for a
// longer id is just as long.
const MaxNameLen = MaxIDLen - len("-g") - 20

// nameHashLen is the length of a hash in a name: 64 bits, 5 to a character.
const nameHashLen = 13

// HasShortName says whether a deal's id is too long to stand in other ids.
func HasShortName[T string | []byte](deal T) bool { return len(deal) > MaxNameLen }

// AppendName appends what stands for the deal in the ids of its orders and groups:
// its id or, if that is too long, the beginning of it and a hash of it. No two deals
// of a node may have the same.
func AppendName[T string | []byte](dst []byte, deal T) []byte {
	if !HasShortName(deal) {
		return append(dst, deal...)
	}
	const digits = "0123456789abcdefghijklmnopqrstuv"
	dst = append(append(dst, deal[:MaxNameLen-1-nameHashLen]...), '-')
	sum := xxhash.Sum64([]byte(deal))
	for range nameHashLen {
		dst = append(dst, digits[sum%32])
		sum /= 32
	}
	return dst
}

// AppendOrderID appends the id of the order whose event is seq.
func AppendOrderID[T string | []byte](dst []byte, deal T, seq uint64) []byte {
	return strconv.AppendUint(append(AppendName(dst, deal), '-'), seq, 10)
}

// AppendGroupID appends the id of the group that order seq opened.
func AppendGroupID[T string | []byte](dst []byte, deal T, seq uint64) []byte {
	return strconv.AppendUint(append(AppendName(dst, deal), "-g"...), seq, 10)
}

// ParseOrderID splits an order's id into its deal's name and its seq. False: it is
// none.
func ParseOrderID(id []byte) (name []byte, seq uint64, ok bool) { return parseID(id, "-") }

// ParseGroupID splits a group's id into its deal's name and its seq. False: it is
// none.
func ParseGroupID(id []byte) (name []byte, seq uint64, ok bool) { return parseID(id, "-g") }

func parseID(id []byte, sep string) (name []byte, seq uint64, ok bool) {
	i := bytes.LastIndex(id, []byte(sep))
	if i < 0 || len(id) > MaxIDLen || i > MaxNameLen || !ValidID(id[:i]) {
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
