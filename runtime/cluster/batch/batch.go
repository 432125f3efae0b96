// Package batch is the one message between the members of a cluster, as protobuf.
package batch

//go:generate sh -c "d=$(mktemp -d) && GOFLAGS= GOBIN=${DOLLAR}d go install google.golang.org/protobuf/cmd/protoc-gen-go && PATH=${DOLLAR}d:$PATH protoc --go_out=. --go_opt=paths=source_relative batch.proto && rm -r ${DOLLAR}d"
