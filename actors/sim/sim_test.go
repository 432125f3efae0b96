package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/actors"
)

var (
	seedsFlag  = flag.Int("seeds", 2000, "how many seeds to run")
	firstFlag  = flag.Uint64("first", 1, "the first of them")
	clonesFlag = flag.Int("clones", 100, "how many crash clones with unsynced data to make at least")
	seedFlag   = flag.Uint64("seed", 0, "run this seed alone and print its trace")
)

// deathsMax is how many processes may die in one actor system: nobody stops
// their actors.
const deathsMax = 1000

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newBase() actors.Config {
	logger := slog.New(slog.DiscardHandler)
	return actors.Config{Logger: logger, System: actors.NewSystem(logger)}
}

// TestSimulation runs many seeds. On a failure it prints the seed.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		w := newWorld(*seedFlag, newBase(), os.Stdout)
		if err := w.live(); err != nil {
			t.Fatalf("seed %d: %v", *seedFlag, err)
		}
		return
	}
	base, cover, deaths := newBase(), coverage{}, 0
	begin := time.Now()
	for i := range *seedsFlag {
		seed := *firstFlag + uint64(i)
		w := newWorld(seed, base, nil)
		if err := w.live(); err != nil {
			t.Fatalf("after %d seeds, seed %d: %v\nrun it again: go test ./actors/sim -run TestSimulation -seed %d", i+1, seed, err, seed)
		}
		cover.add(w.cover)
		if deaths += w.deaths; deaths > deathsMax {
			base, deaths = newBase(), 0
		}
	}
	t.Logf("%d seeds, %.0f a second\n%v", *seedsFlag, float64(*seedsFlag)/time.Since(begin).Seconds(), cover)
	for _, what := range cover.missing(*seedsFlag) {
		t.Errorf("never happened: %s", what)
	}
}

// TestTraceRepeats runs seeds twice, in actor systems of different age.
func TestTraceRepeats(t *testing.T) {
	old := newBase()
	digest := func(seed uint64, base actors.Config) string {
		w := newWorld(seed, base, nil)
		if err := w.live(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return fmt.Sprintf("%016x", w.digest.Sum64())
	}
	seen := map[string]uint64{}
	for seed := uint64(1); seed <= 2*pebbleEvery; seed++ {
		first, again := digest(seed, old), digest(seed, newBase())
		if first != again {
			t.Errorf("seed %d: %s, then %s", seed, first, again)
		}
		if other, twice := seen[first]; twice {
			t.Errorf("seeds %d and %d are the same run", other, seed)
		}
		seen[first] = seed
	}
}

// TestThousandsOfShoppers runs seeds in which more shoppers ask than in all others, hardly one of
// them twice, and for longer. A seed is the same life as in TestSimulation otherwise.
func TestThousandsOfShoppers(t *testing.T) {
	const seeds, steps, least = 4, 10_000, 2000
	base := newBase()
	for seed := range uint64(seeds) {
		w := newWorld(1+seed, base, nil)
		w.plan.users, w.plan.steps, w.plan.asks = 1_000_000, steps, 0.5
		if err := w.live(); err != nil {
			t.Fatalf("seed %d: %v", 1+seed, err)
		}
		users := make(map[string]bool)
		for _, o := range w.shop.ops {
			users[string(o.cmd.User)] = true
		}
		t.Logf("seed %d: %d shoppers asked, %d times, and the process died %d times", 1+seed, len(users), len(w.shop.ops), w.deaths)
		if len(users) < least {
			t.Errorf("seed %d: %d shoppers", 1+seed, len(users))
		}
	}
}

// TestCrashClones leaves on pebble's disk, at each crash, none, half or all of
// what was not synced. The seed does not decide what that is, so a failure may
// need a few attempts to come again.
func TestCrashClones(t *testing.T) {
	const report = 1000 // seeds
	base, clones, deaths := newBase(), 0, 0
	begin := time.Now()
	for i := uint64(0); clones < *clonesFlag; i++ {
		seed := *firstFlag + i
		w := newWorld(seed, base, nil)
		w.disk = &pebbleDisk{fs: vfs.NewCrashableMem(), some: true}
		if err := w.live(); err != nil {
			t.Fatalf("after %d crash clones, seed %d: %v", clones, seed, err)
		}
		clones += w.deaths
		if deaths += w.deaths; deaths > deathsMax {
			base, deaths = newBase(), 0
		}
		if (i+1)%report == 0 || clones >= *clonesFlag {
			t.Logf("%d seeds, %d crash clones, %.0f a second, 0 acknowledged orders lost", i+1, clones, float64(clones)/time.Since(begin).Seconds())
		}
	}
}
