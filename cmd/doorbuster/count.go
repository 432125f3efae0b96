package main

import "fmt"

// count says how many there are of something, whose name gets an s if that is not one.
func count[N int | int64 | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
