// Package clustertest lets several nodes run in one process under the race detector.
package clustertest

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// suppressed is a race that is not ours: each start of Proto.Actor's remote makes gRPC
// another logger and puts it in the place of the one before, which gRPC wants done
// before anything else is. A server starts it once.
const suppressed = "race:google.golang.org/grpc/grpclog\n"

const option = " suppressions="

// Tolerate runs the test again, as it was started, with a race detector that does not
// report that one. The detector reads what to leave out when a process starts, and
// nowhere else. Call it first in TestMain.
func Tolerate() {
	before, file, told := strings.Cut(os.Getenv("GORACE"), option)
	if told {
		// It has been read, and is not for the processes that the test starts.
		if err := errors.Join(os.Remove(file), os.Setenv("GORACE", before)); err != nil {
			panic(err)
		}
		return
	}
	panic(again(before))
}

func again(options string) error {
	file, err := os.CreateTemp("", "races-*.txt")
	if err != nil {
		return err
	}
	if _, err := file.WriteString(suppressed); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv("GORACE", options+option+file.Name()); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
