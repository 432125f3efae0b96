package journaltest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	journaltest.Run(t, func(*testing.T) journaltest.Place {
		m := journaltest.NewMemory()
		return func(*testing.T) journal.Store {
			m = m.Reopen()
			return m
		}
	})
}
