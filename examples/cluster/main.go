// Command cluster starts a cluster of real processes, breaks it in one way after the
// other while shoppers order, and holds every answer that they got against the journal.
//
//	go run ./examples/cluster                       three nodes, every fault, then some at random
//	go run ./examples/cluster --only 'kill|SIGSTOP' those two
//	go run ./examples/cluster --nodes 5 --random 50
//
// Each node, PostgreSQL and etcd are hosts with a network namespace of their own, behind
// one bridge, in namespaces that the program makes for itself: nothing of it can be seen
// from the machine, and nothing is left when it ends. Where that is not permitted it says
// so, puts everything on loopback and leaves out what takes a network to break.
//
//	ground.go     the hosts, and what cuts them off from each other (iproute2, nftables)
//	links.go      the connections that can be slowed down and broken (toxiproxy)
//	services.go   etcd and PostgreSQL, of the system's packages
//	node.go       a doorbuster server
//	clockstep.go  how to move the clock of one process
//	faults.go     what happens to the cluster: the table to read first
//	shop.go       the shoppers, who keep every answer
//	audit.go      the answers against the journal
//	play.go       one fault after the other, and the report
//	scale.go      orders a second of 1, 2 and 3 nodes, and what a hop costs
//	model.go      what that says of 10 and of 100
//	quota.go      nodes that have one core, or may use a part of it
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == insideWord {
		if err := furnish(); err != nil {
			fail(err)
		}
		play(os.Args[2:], true)
		return
	}
	if o, err := parse(os.Args[1:]); err != nil || o.loopback {
		play(os.Args[1:], false) // says what is wrong, if anything is
		return
	}
	spaces, err := enclose(os.Args[1:])
	if !spaces {
		fmt.Fprintln(os.Stderr, "cluster: NO NAMESPACES HERE, so everything runs on loopback and no network is cut:", err)
		play(os.Args[1:], false)
		return
	}
	var ended interface{ ExitCode() int }
	if errors.As(err, &ended) {
		os.Exit(ended.ExitCode())
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// options are the flags.
type options struct {
	plan
	scale    scale
	measure  bool
	only     *regexp.Regexp
	random   int
	loopback bool
	markdown string
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.IntVar(&o.nodes, "nodes", 3, "nodes; 1 is a server that knows of no cluster")
	flags.IntVar(&o.deals, "deals", 24, "deals of each shop")
	flags.IntVar(&o.perDeal, "shoppers", 3, "shoppers of each deal")
	flags.Float64Var(&o.rate, "rate", 400, "questions a second of all shoppers together")
	flags.Uint64Var(&o.seed, "seed", 1, "of what is random")
	flags.StringVar(&o.binary, "binary", "", "doorbuster to run; empty builds it")
	flags.StringVar(&o.from, "from", "", "revision of this repository that the nodes begin as, for the rolling upgrade from it, back, and again")
	flags.BoolVar(&o.standby, "standby", true, "give PostgreSQL a synchronous standby")
	flags.BoolVar(&o.keep, "keep", false, "keep the logs")
	flags.IntVar(&o.random, "random", 0, "how many faults to play at random behind the others")
	flags.IntVar(&o.slowest, "slowest", 0, "tell of so many of those who waited longest for deals that stayed, of each fault")
	flags.BoolVar(&o.loopback, "loopback", false, "use no namespaces")
	flags.StringVar(&o.markdown, "markdown", "", "Markdown page that the table is written to")
	flags.BoolVar(&o.measure, "scale", false, "break nothing, and measure 1, 2 and 3 nodes and what a hop costs")
	flags.IntVar(&o.scale.seconds, "seconds", 5, "with --scale: of a round")
	flags.IntVar(&o.scale.rounds, "rounds", 3, "with --scale: rounds")
	flags.Float64Var(&o.scale.share, "share", 0.2, "with --scale: of a core, for each node")
	flags.Func("only", "play the faults whose name this regular expression fits", func(text string) (err error) {
		o.only, err = regexp.Compile(text)
		return err
	})
	err := flags.Parse(args)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected %q", flags.Args())
	case o.from != "" && (o.measure || !o.wanted(upgrade)):
		err = errors.New("with --from all nodes begin as another version, and nothing that is wanted upgrades them")
	}
	return o, errors.Join(err, o.validate())
}

// wanted says whether the fault of that name is to be played.
func (o *options) wanted(fault string) bool { return o.only == nil || o.only.MatchString(fault) }

func play(args []string, spaces bool) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, args, spaces, os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fail(err)
	}
}

func run(ctx context.Context, args []string, spaces bool, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	o.spaces = spaces
	if o.measure {
		return measureScale(ctx, o.plan, o.scale, out, o.markdown)
	}
	k, err := newKit(ctx, o.plan, out)
	defer func() { err = errors.Join(err, k.close(err != nil)) }()
	if err != nil {
		return err
	}
	rows, err := k.playAll(ctx, o.wanted, o.random)
	return errors.Join(err, k.report(rows, out, o.markdown))
}
