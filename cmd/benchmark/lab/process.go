package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a server under measurement.
type Process struct {
	Listen string // host:port
	Admin  string // "" if it has no such listener
	Banner string // its first line

	cmd *exec.Cmd
}

var (
	listenText = regexp.MustCompile(`listening on (\S+?)[,\s]`)
	adminText  = regexp.MustCompile(`admin on (\S+?)[,\s]`)
)

// Start returns when the server serves.
func Start(ctx context.Context, path string, args ...string) (*Process, error) {
	return StartCommand(exec.CommandContext(ctx, path, args...))
}

// StartCommand starts a server that needs more than arguments.
func StartCommand(cmd *exec.Cmd) (*Process, error) {
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stdout)
	banner, err := lines.ReadString('\n')
	listen := listenText.FindStringSubmatch(banner)
	if err != nil || listen == nil {
		return nil, errors.Join(fmt.Errorf("%v began with %q", cmd.Args, banner), err, cmd.Process.Kill(), cmd.Wait())
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the process
	p := &Process{cmd: cmd, Listen: listen[1], Banner: strings.TrimSpace(banner)}
	if admin := adminText.FindStringSubmatch(banner); admin != nil {
		p.Admin = admin[1]
	}
	return p, nil
}

// Stop ends the server in good order.
func (p *Process) Stop() error {
	return errors.Join(p.cmd.Process.Signal(syscall.SIGTERM), p.cmd.Wait())
}

// Kill ends the server as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it has been started, and Wait has not been called
	_ = p.cmd.Wait()         // says that it was killed
}

// Profile writes a CPU profile of the next seconds to a file.
func (p *Process) Profile(ctx context.Context, path string, seconds int) (err error) {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.Admin, seconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, profileMax))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return os.WriteFile(path, body, 0o600)
}

// profileMax bounds a profile, in bytes.
const profileMax = 16 << 20

// Usage is what a process has used since it started.
type Usage struct {
	CPU     time.Duration
	Written int64 // bytes that it caused to be sent to the disk
	Mallocs int64 // heap objects allocated; 0 if the process does not tell
}

// Minus is what was used in between.
func (u Usage) Minus(earlier Usage) Usage {
	return Usage{CPU: u.CPU - earlier.CPU, Written: u.Written - earlier.Written, Mallocs: u.Mallocs - earlier.Mallocs}
}

// Usage asks the kernel, and the process's own metrics.
func (p *Process) Usage(ctx context.Context) (Usage, error) {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	io, err := os.ReadFile("/proc/" + pid + "/io")
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	if u.CPU, _, err = CPU(p.cmd.Process.Pid); err != nil {
		return Usage{}, err
	}
	if u.Written, err = parseNumber(string(io), "write_bytes: "); err != nil || p.Admin == "" {
		return u, err
	}
	metrics, err := Get(ctx, "http://"+p.Admin+"/metrics")
	if err != nil {
		return Usage{}, err
	}
	u.Mallocs, err = parseNumber(metrics, "\ngo_memstats_mallocs_total ")
	return u, err
}

// Metrics reads some of the process's own metrics, which have no labels.
func (p *Process) Metrics(ctx context.Context, names ...string) ([]float64, error) {
	text, err := Get(ctx, "http://"+p.Admin+"/metrics")
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for i, name := range names {
		n, err := parseNumber(text, "\n"+name+" ")
		if err != nil {
			return nil, err
		}
		values[i] = float64(n)
	}
	return values, nil
}

// CPU returns the time that a process has used, and what the children have that it has
// seen end.
func CPU(pid int) (own, children time.Duration, err error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseCPU(string(stat))
}

// parseCPU reads user and system time from a /proc/…/stat. They are fields 14 to 17,
// in ticks of 10 ms, counted from behind the name, which may hold anything.
func parseCPU(stat string) (own, children time.Duration, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("stat %q is too short", stat)
	}
	var times [4]time.Duration
	for i, field := range fields[11:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("stat: %w", err)
		}
		times[i] = time.Duration(ticks) * 10 * time.Millisecond
	}
	return times[0] + times[1], times[2] + times[3], nil
}

// parseNumber reads the number that follows the first occurrence of name.
func parseNumber(text, name string) (int64, error) {
	_, rest, found := strings.Cut(text, name)
	if !found {
		return 0, fmt.Errorf("no %q", strings.TrimSpace(name))
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(strings.TrimSpace(line), 64) // Prometheus writes 1.5e+06
	return int64(n), err
}

// Get returns the body of a 200.
func Get(ctx context.Context, url string) (_ string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}
