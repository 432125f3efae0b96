package shopify

import "math"

// Values cross the boundary of the Shopify Function API in 64 bits: a number as
// itself, everything else in the payload of a NaN, as
//
//	0 11111111111 11 tttt llllllllllllll pppppppppppppppppppppppppppppppp
//
// with a tag, the length of a string, array or object as far as it fits, and a
// place: here that of a node, counted from 1.
const (
	boxMask     = uint64(1<<13-1) << 50
	boxTagShift = 46
	boxLenShift = 32
	boxLenMax   = 1<<14 - 1
	boxTagMax   = 1<<4 - 1
)

// Tags.
const (
	tagNull   = 0
	tagBool   = 1
	tagNumber = 2 // never in a box
	tagText   = 3
	tagObject = 4
	tagArray  = 5
	tagError  = boxTagMax
)

// Errors, the place of a box with tagError.
const (
	errDecode          = 0 // no value
	errNotAnObject     = 1
	errRead            = 3 // the place is none
	errIndexOutOfRange = 5
	errNotIndexable    = 6
)

func box(tag, length, place uint64) uint64 {
	return boxMask | tag<<boxTagShift | min(length, boxLenMax)<<boxLenShift | place
}

func boxError(code uint64) uint64 { return box(tagError, 0, code) }

// unbox returns a value's tag and place; a number has tagNumber.
func unbox(v uint64) (tag uint64, place uint32) {
	if v&boxMask != boxMask {
		return tagNumber, 0
	}
	return v >> boxTagShift & boxTagMax, uint32(v)
}

// box returns the node's value.
func (d *document) box(at int) uint64 {
	v := d.nodes[at]
	place := uint64(at + 1)
	switch v.kind {
	case null:
	case boolean:
		return box(tagBool, 0, uint64(v.n))
	case number:
		return math.Float64bits(v.number)
	case text:
		return box(tagText, uint64(v.n), place)
	case array:
		return box(tagArray, uint64(v.n), place)
	case object:
		return box(tagObject, uint64(v.n), place)
	}
	return box(tagNull, 0, 0)
}

// unboxed returns the node at a place, or -1.
func (d *document) unboxed(place uint32) int {
	if place == 0 || int64(place) > int64(len(d.nodes)) {
		return -1
	}
	return int(place) - 1
}

// property is shopify_function_input_get_obj_prop.
func (d *document) property(v uint64, name []byte) uint64 {
	tag, place := unbox(v)
	switch {
	case tag > tagArray && tag != tagError:
		return boxError(errDecode)
	case tag != tagObject:
		return boxError(errNotAnObject)
	}
	at := d.unboxed(place)
	switch {
	case at < 0:
		return boxError(errRead)
	case d.nodes[at].kind != object:
		return boxError(errNotAnObject)
	}
	if at = d.get(at, string(name)); at < 0 {
		return box(tagNull, 0, 0)
	}
	return d.box(at)
}

// element is shopify_function_input_get_at_index, or with keys
// shopify_function_input_get_obj_key_at_index.
func (d *document) element(v uint64, n uint32, keys bool) uint64 {
	wrong := uint64(errNotIndexable)
	if keys {
		wrong = errNotAnObject
	}
	tag, place := unbox(v)
	switch {
	case tag > tagArray && tag != tagError:
		return boxError(errRead)
	case tag != tagObject && (tag != tagArray || keys):
		return boxError(wrong)
	}
	at := d.unboxed(place)
	if at < 0 {
		return boxError(errRead)
	}
	switch k := d.nodes[at].kind; {
	case k != object && (k != array || keys):
		return boxError(wrong)
	case n >= d.nodes[at].n:
		return boxError(errIndexOutOfRange)
	}
	return d.box(d.index(at, int(n), keys))
}

// length is shopify_function_input_get_val_len: -1 of what has no length.
func (d *document) length(v uint64) uint32 {
	tag, place := unbox(v)
	if tag == tagText || tag == tagObject || tag == tagArray {
		if at := d.unboxed(place); at >= 0 && d.nodes[at].kind >= text {
			return d.nodes[at].n
		}
	}
	return math.MaxUint32
}
