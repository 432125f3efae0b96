package embedded

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The first byte of a key says what it holds. FORMAT.md is the full description.
const (
	keyEvents   = 'e' // stream 0x00 seq → record: events of one stream
	keyGroup    = 'g' // number → group: events of several streams, until they have their records
	keyHead     = 'h' // stream 0x00 'e' → epoch; stream 0x00 's' → seq of the snapshot
	keySnapshot = 's' // stream → seq and state
	keyRow      = 't' // table 0x00 key → value
)

const (
	headEpoch    = 'e'
	headSnapshot = 's'
)

// format is the version of everything that seal writes.
const format = 1

// sealLen is the size of what seal puts before a payload: CRC32C and format.
const sealLen = 5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errChecksum = errors.New("checksum does not match")
	errFormat   = errors.New("unknown format")
	errRecord   = errors.New("malformed record")
	errMissing  = errors.New("no record has them")
)

// checksum covers the key too, so that a value in the wrong place is found out.
func checksum(key, sealed []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[4:])
}

// seal fills in the first sealLen bytes of value, whose payload is in place.
func seal(key, value []byte) {
	value[4] = format
	binary.LittleEndian.PutUint32(value, checksum(key, value))
}

// unseal returns the payload of a sealed value.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < sealLen || binary.LittleEndian.Uint32(value) != checksum(key, value) {
		return nil, errChecksum
	}
	if value[4] != format {
		return nil, errFormat
	}
	return value[sealLen:], nil
}

// record is the payload of an events key: what one stream got from one group, or from
// several that follow each other.
type record struct {
	first  uint64 // seq of the first event
	epoch  uint64
	count  uint64 // at least 1
	frames []byte // count events as journal.AppendEvent frames them
}

func (r *record) last() uint64 { return r.first + r.count - 1 }

func (r *record) sound() bool {
	return r.first > 0 && r.epoch > 0 && r.count > 0 && r.last() >= r.first
}

// uvarintLen is the number of bytes that binary.PutUvarint writes.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// recordLen is the size of a sealed record.
func recordLen(epoch, count uint64, frames int) int {
	return sealLen + uvarintLen(epoch) + uvarintLen(count) + frames
}

// appendRecord begins the payload of a record, which the frames follow.
func appendRecord(dst []byte, epoch, count uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, epoch), count)
}

func sealedRecord(key []byte, r *record) []byte {
	value := make([]byte, sealLen, recordLen(r.epoch, r.count, len(r.frames)))
	value = append(appendRecord(value, r.epoch, r.count), r.frames...)
	seal(key, value)
	return value
}

// decodeRecord checks a record as a whole: checksum, format and every frame. The
// key must be an events key.
func decodeRecord(key, value []byte) (record, error) {
	payload, err := unseal(key, value)
	if err != nil {
		return record{}, err
	}
	r, err := recordHeader(key, payload)
	if err != nil {
		return record{}, err
	}
	if count, ok := journal.CountEvents(r.frames); !ok || uint64(count) != r.count {
		return record{}, errRecord
	}
	return r, nil
}

// recordHeader reads what stands before the frames and leaves these unchecked.
func recordHeader(key, payload []byte) (r record, err error) {
	if len(key) < 8 {
		return record{}, errRecord
	}
	r.first = binary.BigEndian.Uint64(key[len(key)-8:])
	var ok bool
	if r.epoch, payload, ok = cutUvarint(payload); !ok {
		return record{}, errRecord
	}
	if r.count, r.frames, ok = cutUvarint(payload); !ok {
		return record{}, errRecord
	}
	if !r.sound() {
		return record{}, errRecord
	}
	return r, nil
}

// cutUvarint takes a varint in its shortest form off data.
func cutUvarint(data []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(data)
	if n <= 0 || (n > 1 && data[n-1] == 0) {
		return 0, nil, false
	}
	return v, data[n:], true
}

// Keys. Each function appends to dst, which may be nil.

func appendStream(dst []byte, kind byte, stream string) []byte {
	dst = append(dst, kind)
	dst = append(dst, stream...)
	return append(dst, 0)
}

func appendEventKey(dst []byte, stream string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(appendStream(dst, keyEvents, stream), seq)
}

func eventKeyLen(stream string) int { return 1 + len(stream) + 1 + 8 }

const groupKeyLen = 1 + 8

func appendGroupKey(dst []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, keyGroup), number)
}

func groupKey(number uint64) []byte { return appendGroupKey(nil, number) }

func groupNumber(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

func headKey(stream string, field byte) []byte {
	return append(appendStream(nil, keyHead, stream), field)
}

func appendSnapshotKey(dst []byte, stream string) []byte {
	return append(append(dst, keySnapshot), stream...)
}

func rowKey(table, key string) []byte {
	return appendRowKey(make([]byte, 0, len(table)+len(key)+2), table, key)
}

func appendRowKey(dst []byte, table, key string) []byte {
	return append(appendStream(dst, keyRow, table), key...)
}

// successor is the first key that does not begin with prefix, which ends in a byte
// below 0xff.
func successor(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

// splitHeadKey takes apart a head key.
func splitHeadKey(key []byte) (stream []byte, field byte, ok bool) {
	if len(key) < 4 || key[0] != keyHead || key[len(key)-2] != 0 {
		return nil, 0, false
	}
	return key[1 : len(key)-2], key[len(key)-1], true
}

// sealedNumber is a sealed value that holds one number.
func sealedNumber(key []byte, n uint64) []byte {
	value := binary.AppendUvarint(make([]byte, sealLen, sealLen+binary.MaxVarintLen64), n)
	seal(key, value)
	return value
}

func unsealNumber(key, value []byte) (uint64, error) {
	payload, err := unseal(key, value)
	if err != nil {
		return 0, err
	}
	n, rest, ok := cutUvarint(payload)
	if !ok || len(rest) > 0 {
		return 0, errRecord
	}
	return n, nil
}
