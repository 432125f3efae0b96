//go:build !race

package main

const loopsMax = 8
