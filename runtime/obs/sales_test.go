package obs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

var cny, eur = [3]byte{'C', 'N', 'Y'}, [3]byte{'E', 'U', 'R'}

func newSales(t *testing.T, channels ...string) (*Metrics, *Sales) {
	t.Helper()
	m := NewMetrics()
	s, err := m.Sales(channels)
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestSales(t *testing.T) {
	m, s := newSales(t, "app", "web")
	s.Count("fruit", cny, []byte("app"), SaleAccepted, 9900)
	s.Count("fruit", cny, []byte("app"), SaleAccepted, 100)
	s.Count("fruit", cny, []byte("invented"), SaleRefused, 9900)
	s.Count("fruit", eur, nil, SaleAccepted, 5)
	s.Count("", cny, []byte("web"), SaleRefused, 0)
	got := scrape(m)
	for _, line := range []string{
		`doorbuster_sales_orders_total{category="fruit",channel="app",outcome="accepted"} 2`,
		`doorbuster_sales_orders_total{category="fruit",channel="other",outcome="refused"} 1`,
		`doorbuster_sales_orders_total{category="fruit",channel="none",outcome="accepted"} 1`,
		`doorbuster_sales_orders_total{category="none",channel="web",outcome="refused"} 1`,
		`doorbuster_sales_value_total{category="fruit",channel="app",currency="CNY"} 10000`,
		`doorbuster_sales_value_total{category="fruit",channel="none",currency="EUR"} 5`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	if strings.Contains(got, "invented") || strings.Count(got, "doorbuster_sales_value_total{") != 2 {
		t.Errorf("a series too many:\n%s", got)
	}
}

// TestSalesAreBounded invents categories and channels from many goroutines.
func TestSalesAreBounded(t *testing.T) {
	m, s := newSales(t, "app")
	const each = 4 * CategoriesMax
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			for i := range each {
				s.Count(fmt.Sprint("c", i), cny, fmt.Append(nil, "x", g), SaleAccepted, 1)
			}
		})
	}
	wait.Wait()
	got := scrape(m)
	if n := strings.Count(got, "doorbuster_sales_orders_total{"); n != CategoriesMax+1 {
		t.Errorf("%d series", n)
	}
	if want := fmt.Sprintf(`{category="other",channel="other",outcome="accepted"} %d`, 4*(each-CategoriesMax)); !strings.Contains(got, want) {
		t.Errorf("%s is missing in\n%s", want, got)
	}
	if strings.Contains(got, `sales_value_total{category="other"`) {
		t.Error("amounts were added up that may be of several currencies")
	}
}

func TestSalesDoNotAllocate(t *testing.T) {
	_, s := newSales(t, "app")
	channel := []byte("app")
	if n := testing.AllocsPerRun(100, func() { s.Count("fruit", cny, channel, SaleAccepted, 9900) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSalesRefuseNames(t *testing.T) {
	for _, channels := range [][]string{{""}, {"other"}, {"none"}, make([]string, ChannelsMax+1)} {
		if _, err := NewMetrics().Sales(channels); err == nil {
			t.Errorf("%q were taken", channels)
		}
	}
}

func BenchmarkSales(b *testing.B) {
	s, err := NewMetrics().Sales([]string{"app", "web", "mini", "store"})
	if err != nil {
		b.Fatal(err)
	}
	channel := []byte("store")
	for b.Loop() {
		s.Count("fruit", cny, channel, SaleAccepted, 9900)
	}
}
