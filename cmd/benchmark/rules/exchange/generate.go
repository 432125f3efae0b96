// Package exchange is the rule ABI's order and answer as protobuf messages, with the
// code that go-plugin generates to call a plug-in with them. The messages are
// marshalled by vtprotobuf, which go-plugin uses: without reflection.
package exchange

//go:generate sh -c "GOFLAGS= GOBIN=\"${TMPDIR:-/tmp}\" go install github.com/knqyf263/go-plugin/cmd/protoc-gen-go-plugin@v0.9.0 && PATH=\"${TMPDIR:-/tmp}:$PATH\" protoc --go-plugin_out=. --go-plugin_opt=paths=source_relative rule.proto"
