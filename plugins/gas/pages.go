package gas

import "math/bits"

// Pages is how a module marks what it stores to. Memory is cut into pages of
// 1 << Shift bytes (1 to 4 KiB, not WebAssembly's 64), and the marks are one bit
// of Dirty.Low by the page's number modulo 64 and, for larger memories, one bit of
// Dirty.High by its number divided by 64, modulo 64 again. A page is dirty when
// both its bits are set: never too few pages, sometimes a few too many, and no
// branch and no second memory for a store.
type Pages struct {
	Shift uint8
	Two   bool // Dirty.High is in use; otherwise it counts as all ones
}

// Dirty holds the marks. It is no array, which would be passed through memory.
type Dirty struct{ Low, High uint64 }

// storeBytesMax is the widest store: one that starts at the end of a marked
// page reaches this far into the next, less one byte. Restore copies that too.
const storeBytesMax = 16

// pagesFor returns the finest marking for a memory that starts with this many
// WebAssembly pages. A memory that grows beyond stays correct: the marks alias.
func pagesFor(initial uint32) Pages {
	size := max(initial, 1) << 16
	p := Pages{Shift: 10, Two: size > 64<<12}
	reach := uint32(64 << 10)
	if p.Two {
		reach *= 64
	}
	for ; reach < size; reach *= 2 {
		p.Shift++
	}
	return p
}

// Mark marks n bytes from address on, as the rewritten stores do. The host calls
// it for what it writes into a module's memory itself, and charges the difference
// in Price.
func (p Pages) Mark(d *Dirty, address, n uint32) {
	if n == 0 {
		return
	}
	first, last := address>>p.Shift, (address+n-1)>>p.Shift
	d.Low |= bitSpan(first, last)
	if p.Two {
		d.High |= bitSpan(first>>6, last>>6)
	}
}

// Price returns what copying the marked pages back costs, in units of fuel: the
// first FreeBytes nothing, the others by their bytes. Marks that alias count for
// every page that they stand for, since Restore copies them all.
func (p Pages) Price(d Dirty) uint64 {
	if !p.Two {
		d.High = 1
	}
	n := bits.OnesCount64(d.Low) * bits.OnesCount64(d.High)
	return uint64(max(n-p.free(), 0) * p.units())
}

// gratis says that Price is 0 whatever is marked.
func (p Pages) gratis() bool { return !p.Two && p.free() >= 64 }

// free is how many pages cost nothing, and units the price of each other one.
func (p Pages) free() int  { return FreeBytes >> p.Shift }
func (p Pages) units() int { return 1 << p.Shift / RestoredPerUnit }

// bitSpan returns the bits first … last, modulo 64.
func bitSpan(first, last uint32) uint64 {
	if last-first >= 63 {
		return ^uint64(0)
	}
	return bits.RotateLeft64(1<<(last-first+1)-1, int(first))
}

// Restore copies the dirty pages from src to dst, which have the same length.
func (p Pages) Restore(dst, src []byte, d Dirty) {
	if d.Low == 0 {
		return
	}
	if !p.Two {
		d.High = ^uint64(0)
	}
	for group := 0; group < len(dst); group += 64 << p.Shift {
		if d.High&1 != 0 {
			for pages := d.Low; pages != 0; pages &= pages - 1 {
				at := group + bits.TrailingZeros64(pages)<<p.Shift
				if at >= len(dst) {
					break
				}
				copy(dst[at:min(at+1<<p.Shift+storeBytesMax-1, len(dst))], src[at:])
			}
		}
		d.High = bits.RotateLeft64(d.High, -1)
	}
}
