package doorbuster

import (
	"iter"
	"strings"
)

// List returns the entries of a list in an attribute, "a, b,c": without the
// spaces around them, and without empty ones.
func List(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for entry := range strings.SplitSeq(text, ",") {
			if entry = strings.Trim(entry, " "); entry != "" && !yield(entry) {
				return
			}
		}
	}
}

// EqualFold says whether two texts are equal when a-z count as A-Z. No other
// letter has a second case here, so that every language agrees.
func EqualFold(a, b string) bool { return len(a) == len(b) && HasPrefixFold(a, b) }

// HasPrefixFold says whether s begins with prefix, in the sense of EqualFold.
func HasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if upper(s[i]) != upper(prefix[i]) {
			return false
		}
	}
	return true
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}
