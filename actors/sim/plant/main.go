// Command plant proves that the tests find what they are for. It builds the
// suite once with each planted bug, behind the build tag plant_<name>, and
// fails unless every one of them is caught. Arguments name the bugs to plant,
// none means all, and -short one of each layer.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// seedsMax is how many simulations a bug may survive before it counts as missed.
const seedsMax = 20_000

// plant is one bug and the tests that should find it.
type plant struct {
	name string
	what string
	by   suite
	tour bool // -short plants it: one bug of each layer
}

// suite is some packages whose tests are run with some arguments.
type suite struct{ packages, args []string }

var simulator = suite{[]string{"actors/sim"}, []string{"-test.run", "^TestSimulation$", "-seeds", strconv.Itoa(seedsMax)}}

var plants = []plant{
	{"ack_early", "acknowledge before the sync", simulator, true},
	{"skip_sync", "skip the sync", simulator, false},
	{"skip_folder_sync", "forget the folder's sync", simulator, true},
	{"drop_epoch", "drop the epoch check", simulator, false},
	{"keep_quota", "quota not given back on cancel", simulator, true},
	{"forget_key", "idempotency key forgotten on restart", simulator, false},
	{"reuse_early", "pooled context reused early", simulator, false},
	{"trust_wall", "wall clock trusted", simulator, false},
	{"keep_hold", "expired hold not returned", simulator, false},
	{"mark_early", "derived row marked before it is written", simulator, false},
	{"keep_rule_state", "rule state left between orders", suite{[]string{"plugins/host"}, []string{"-test.run", "^TestNothingIsKept$"}}, true},
	{"free_block", "fuel not charged in one block kind", suite{[]string{"plugins/host"}, []string{"-test.run", "^TestDifferential$"}}, false},
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "plant:", err)
		os.Exit(1)
	}
}

func run(names []string, out io.Writer) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	caught, seeds := 0, []int(nil)
	for _, p := range chosen {
		by, err := p.hunt()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(out, "%-17s %-42s %s\n", p.name, p.what, by)
		if by.found {
			caught++
		}
		if by.seeds > 0 {
			seeds = append(seeds, by.seeds)
		}
	}
	fmt.Fprintf(out, "%d of %d caught", caught, len(chosen))
	if slices.Sort(seeds); len(seeds) > 0 {
		fmt.Fprintf(out, ", by the simulator after %d seeds in the median", seeds[len(seeds)/2])
	}
	fmt.Fprintln(out)
	if caught < len(chosen) {
		return errors.New("the tests miss a bug")
	}
	return nil
}

func choose(names []string) (chosen []plant, err error) {
	switch {
	case len(names) == 0:
		return plants, nil
	case names[0] == "-short":
		return slices.DeleteFunc(slices.Clone(plants), func(p plant) bool { return !p.tour }), nil
	}
	for _, name := range names {
		i := slices.IndexFunc(plants, func(p plant) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no bug is called %q", name)
		}
		chosen = append(chosen, plants[i])
	}
	return chosen, nil
}

// catch is how a bug was found.
type catch struct {
	found bool
	seeds int    // that the simulator ran until then; 0 if another test found it
	says  string // the failure in one line
}

func (c catch) String() string {
	switch {
	case !c.found:
		return "MISSED"
	case c.seeds > 0:
		return fmt.Sprintf("%6d seeds  %s", c.seeds, c.says)
	}
	return "              " + c.says
}

// hunt builds the suite with the bug and runs it. A build that fails finds nothing.
func (p plant) hunt() (found catch, err error) {
	dir, err := os.MkdirTemp("", "doorbuster-plant-")
	if err != nil {
		return catch{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, folder := range p.by.packages {
		binary := filepath.Join(dir, filepath.Base(folder))
		if out, err := exec.Command("go", "test", "-c", "-tags", "plant_"+p.name, "-o", binary, "./"+folder).CombinedOutput(); err != nil {
			return catch{}, fmt.Errorf("build: %w\n%s", err, out)
		}
		test := exec.Command(binary, p.by.args...)
		test.Dir = folder
		out, err := test.CombinedOutput()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return read(out), nil
		}
		if err != nil {
			return catch{}, err
		}
	}
	return catch{}, nil
}

var (
	afterSeeds = regexp.MustCompile(`after (\d+) seeds, (.*)`)
	failedTest = regexp.MustCompile(`--- FAIL: (\S+)`)
)

// read finds in a failed test's output what failed. A process that died without
// saying so is a find as well.
func read(out []byte) catch {
	if m := afterSeeds.FindSubmatch(out); m != nil {
		seeds, _ := strconv.Atoi(string(m[1]))
		return catch{true, seeds, shorten(string(m[2]))}
	}
	if m := failedTest.FindSubmatch(out); m != nil {
		return catch{true, 0, string(m[1])}
	}
	first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return catch{true, 0, shorten(string(first))}
}

func shorten(text string) string {
	const most = 100
	text = strings.TrimSpace(text)
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
