package yield_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/doorbuster/doorbuster/runtime/yield"
)

func TestPieces(t *testing.T) {
	for _, n := range []int{0, 1, yield.PieceBytes, yield.PieceBytes + 1, 3 * yield.PieceBytes} {
		var covered []int
		if !yield.Pieces(n, func(from, to int) bool {
			if from >= to || to-from > yield.PieceBytes {
				t.Errorf("%d: a piece from %d to %d", n, from, to)
			}
			covered = append(covered, from, to)
			return true
		}) {
			t.Errorf("%d: ended early", n)
		}
		covered = append([]int{0}, covered...)
		if covered = append(covered, n); len(covered)%2 != 0 {
			t.Fatal(covered)
		}
		for pair := range slices.Chunk(covered, 2) {
			if pair[0] != pair[1] {
				t.Errorf("%d: pieces at %d", n, covered)
			}
		}
	}
	calls := 0
	if yield.Pieces(4*yield.PieceBytes, func(int, int) bool { calls++; return calls < 2 }) || calls != 2 {
		t.Errorf("%d calls, 2 and an early end wanted", calls)
	}
}

func TestWrite(t *testing.T) {
	text := bytes.Repeat([]byte("door"), yield.PieceBytes)
	sum := sha256.New()
	yield.Write(sum, text)
	if want := sha256.Sum256(text); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("another hash")
	}
}

func TestReader(t *testing.T) {
	text := bytes.Repeat([]byte("door"), yield.PieceBytes)
	if got, err := io.ReadAll(yield.Reader{From: bytes.NewReader(text)}); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes: %v", len(got), err)
	}
	if n, err := (yield.Reader{From: bytes.NewReader(text)}).Read(make([]byte, len(text))); err != nil || n != yield.PieceBytes {
		t.Errorf("%d bytes at once: %v", n, err)
	}
	if _, err := io.ReadAll(yield.Reader{From: iotest.ErrReader(io.ErrUnexpectedEOF)}); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}
