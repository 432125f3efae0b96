#!/bin/sh
# Builds the rules that ship with the engine into plugins/house, from anywhere.
# With a folder as argument, into that folder instead.
#
# The bytes depend on the compiler: they are built with Debian's clang 14 and
# wasm-ld 14 (apt-get install clang lld), and a test compares them.
set -eu
rules=$(cd "$(dirname "$0")" && pwd)
out=${1:-$rules/../../plugins/house}
mkdir -p "$out"

# build_c NAME: one freestanding C file. The stack is 4 KiB and comes first, so
# that a stack that overflows traps instead of running into the data.
build_c() {
	object=$(mktemp)
	clang --target=wasm32 -std=c11 -Os -Wall -Wextra -Werror -ffreestanding -nostdlib \
		-c "$rules/$1/$1.c" -o "$object"
	wasm-ld --no-entry --strip-all --stack-first -z stack-size=4096 \
		--initial-memory=65536 --max-memory=65536 "$object" -o "$out/$1.wasm"
	chmod 644 "$out/$1.wasm" # wasm-ld makes it executable
	rm -f "$object"
}

build_c tiered
