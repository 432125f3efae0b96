package cluster_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/registrytest"
)

func TestStatic(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(_ testing.TB, all []string) cluster.Registry { return cluster.Static(all...) })
}
