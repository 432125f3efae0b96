package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// childWord is the first argument of this binary when it runs one side.
const childWord = "child"

// runChild is a side that needs a process of its own.
func runChild(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	roles := map[string]func(context.Context, []string, io.Reader, io.Writer) error{
		"orders":  serveOrders,
		"journal": writeJournal,
	}
	if len(args) == 0 || roles[args[0]] == nil {
		return fmt.Errorf("no such side: %v", args)
	}
	return roles[args[0]](ctx, args[1:], in, out)
}

// child is a side at work: it says where it listens in its first line, and
// reports and ends when its standard input does. So it ends with us, too.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	listen string
}

const listenPrefix = "listening on "

// startChild runs this binary again. procs is its GOMAXPROCS.
func (s *session) startChild(ctx context.Context, procs int, args ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, s.self, append([]string{childWord}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	line, err := c.stdout.ReadString('\n')
	listen, found := strings.CutPrefix(strings.TrimSpace(line), listenPrefix)
	if err != nil || !found {
		return nil, errors.Join(fmt.Errorf("%v began with %q", args, line), err, cmd.Process.Kill(), cmd.Wait())
	}
	c.listen = listen
	return c, nil
}

// end asks for the report and waits for the process.
func (c *child) end(report any) error {
	err := c.stdin.Close()
	if err == nil {
		err = json.NewDecoder(c.stdout).Decode(report)
	}
	if err != nil {
		_ = c.cmd.Process.Kill() // what went wrong is known already
	}
	return errors.Join(err, c.cmd.Wait())
}
