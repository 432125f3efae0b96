package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideWord is the first argument of this binary when it runs in namespaces of its
// own.
const insideWord = "inside"

// enclose runs this binary again in network, mount and process namespaces of its own.
// Whatever happens to it there, the kernel takes away all that it started and set up
// when its last process is gone. spaces is false where the kernel or the lack of root
// does not allow it; then nothing was run.
func enclose(args []string) (spaces bool, err error) {
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", append([]string{insideWord}, args...)...) //nolint:noctx // an interrupt reaches it as well, and it ends in good order
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	go func() {
		for range signals {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}
	}()
	return true, cmd.Wait()
}

// furnish makes the namespaces that enclose has given this process usable: it sees its
// own processes, and the names of its network namespaces are nobody else's.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run/netns: %w", err)
	}
	return nil
}

// ground is where the hosts stand: each in a network namespace of its own behind one
// bridge, or, without spaces, all on loopback, where nothing can be cut.
type ground struct {
	spaces bool
	block  string // the first three numbers of every address
}

// Addresses on the ground, by their last number.
const (
	shoppersAt  = 1 // this process, as shoppers
	etcdAt      = 2
	postgresAt  = 3
	linksAt     = 5 // this process, as the links that it can slow down and break
	firstNodeAt = 11
)

const (
	bridge = "doorbuster0"
	// bridgeMAC is given, or the bridge would take another address whenever a host is
	// added, and not be found for as long as the others remember the old one.
	bridgeMAC = "02:00:00:00:00:01"
)

func newGround(ctx context.Context, spaces bool) (*ground, error) {
	if !spaces {
		pid := os.Getpid() // others may do the same beside us
		return &ground{block: fmt.Sprintf("127.%d.%d", 1+pid>>8&0x7f, pid&0xff)}, nil
	}
	g := &ground{spaces: true, block: "10.77.0"}
	return g, errors.Join(
		command(ctx, "ip", "link", "set", "lo", "up"),
		command(ctx, "ip", "link", "add", bridge, "address", bridgeMAC, "type", "bridge"),
		command(ctx, "ip", "address", "add", g.ip(shoppersAt)+"/24", "dev", bridge),
		command(ctx, "ip", "address", "add", g.ip(linksAt)+"/24", "dev", bridge),
		command(ctx, "ip", "link", "set", bridge, "up"),
	)
}

func (g *ground) ip(number int) string { return fmt.Sprintf("%s.%d", g.block, number) }

// host is a machine of the cluster.
type host struct {
	name  string
	ip    string
	space string // its network namespace, "" on loopback
}

// host adds a machine.
func (g *ground) host(ctx context.Context, name string, number int) (*host, error) {
	h := &host{name: name, ip: g.ip(number)}
	if !g.spaces {
		return h, nil
	}
	h.space = "/run/netns/" + name
	outer := "to-" + name
	if err := errors.Join(
		command(ctx, "ip", "netns", "add", name),
		command(ctx, "ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name),
		command(ctx, "ip", "link", "set", outer, "master", bridge, "up"),
	); err != nil {
		return nil, err
	}
	return h, h.run(func() error {
		return errors.Join(
			command(ctx, "ip", "link", "set", "lo", "up"),
			command(ctx, "ip", "address", "add", h.ip+"/24", "dev", "eth0"),
			command(ctx, "ip", "link", "set", "eth0", "up"),
			nft(ctx, emptyRules),
		)
	})
}

// addr is a port of the host.
func (h *host) addr(port int) string { return fmt.Sprintf("%s:%d", h.ip, port) }

// run calls fn on the host: sockets that it opens and processes that it starts there
// belong to the host's network namespace. fn must not leave that to goroutines.
func (h *host) run(fn func() error) error {
	if h.space == "" {
		return fn()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		done <- func() error {
			space, err := os.Open(h.space)
			if err != nil {
				return err
			}
			err = errors.Join(unix.Setns(int(space.Fd()), unix.CLONE_NEWNET), space.Close())
			if err != nil {
				return fmt.Errorf("enter %s: %w", h.space, err)
			}
			return fn()
		}()
	}()
	return <-done
}

// emptyRules is a host whose packets all pass.
const emptyRules = `
table ip cut
delete table ip cut
table ip cut {
	chain in { type filter hook input priority 0; }
	chain out { type filter hook output priority 0; }
	chain turn { type nat hook output priority -100; }
}`

// cut drops the packets that come from, and those that go to, the given addresses.
func (h *host) cut(ctx context.Context, from, to []string) error {
	rules := []string{emptyRules}
	for _, ip := range from {
		rules = append(rules, "add rule ip cut in ip saddr "+ip+" drop")
	}
	for _, ip := range to {
		rules = append(rules, "add rule ip cut out ip daddr "+ip+" drop")
	}
	return h.run(func() error { return nft(ctx, rules...) })
}

// turn sends what goes to each address of the map to another one instead, and resets
// the connections that exist already.
func (h *host) turn(ctx context.Context, to map[string]string) error {
	rules := []string{emptyRules}
	for from, to := range to {
		ip, port, _ := strings.Cut(from, ":")
		rules = append(rules,
			fmt.Sprintf("add rule ip cut turn ip daddr %s tcp dport %s dnat to %s", ip, port, to),
			fmt.Sprintf("add rule ip cut out ip daddr %s tcp dport %s reject with tcp reset", ip, port))
	}
	return h.run(func() error { return nft(ctx, rules...) })
}

// heal lets everything pass.
func (h *host) heal(ctx context.Context) error {
	return h.run(func() error { return nft(ctx, emptyRules) })
}

func nft(ctx context.Context, rules ...string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(rules, "\n"))
	return output(cmd)
}

func command(ctx context.Context, name string, args ...string) error {
	return output(exec.CommandContext(ctx, name, args...))
}

func output(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said.Bytes())
	}
	return nil
}
