package main

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

// process is a server under measurement. It says where it listens in the first
// line that it prints.
type process struct {
	cmd           *exec.Cmd
	listen, admin string // admin is "" if it has none
	banner        string // its first line
}

var (
	listenText = regexp.MustCompile(`listening on (\S+?)[,\s]`)
	adminText  = regexp.MustCompile(`admin on (\S+?)[,\s]`)
)

// startProcess returns when the server serves: it prints its line then, and
// not before.
func startProcess(ctx context.Context, path string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, path, args...)
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
		return nil, errors.Join(fmt.Errorf("%s %v began with %q", path, args, banner), err, cmd.Process.Kill(), cmd.Wait())
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the process
	p := &process{cmd: cmd, listen: listen[1], banner: strings.TrimSpace(banner)}
	if admin := adminText.FindStringSubmatch(banner); admin != nil {
		p.admin = admin[1]
	}
	return p, nil
}

// stop ends the server in good order.
func (p *process) stop() error {
	return errors.Join(p.cmd.Process.Signal(syscall.SIGTERM), p.cmd.Wait())
}

// kill ends the server as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it has been started, and Wait has not been called
	_ = p.cmd.Wait()         // says that it was killed
}

// usage is what a process has used since it started.
type usage struct {
	cpu     time.Duration
	written int64 // bytes that it caused to be sent to the disk
	mallocs int64 // heap objects allocated; 0 if the process does not tell
}

func (u usage) minus(earlier usage) usage {
	return usage{cpu: u.cpu - earlier.cpu, written: u.written - earlier.written, mallocs: u.mallocs - earlier.mallocs}
}

func (p *process) usage(ctx context.Context) (usage, error) {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return usage{}, err
	}
	io, err := os.ReadFile("/proc/" + pid + "/io")
	if err != nil {
		return usage{}, err
	}
	var u usage
	if u.cpu, err = parseCPU(string(stat)); err != nil {
		return usage{}, err
	}
	if u.written, err = parseNumber(string(io), "write_bytes: "); err != nil || p.admin == "" {
		return u, err
	}
	metrics, err := get(ctx, "http://"+p.admin+"/metrics")
	if err != nil {
		return usage{}, err
	}
	u.mallocs, err = parseNumber(metrics, "\ngo_memstats_mallocs_total ")
	return u, err
}

// parseCPU reads user and system time from a /proc/…/stat. They are fields 14
// and 15 in ticks of 10 ms, counted from behind the name, which may hold anything.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat %q is too short", stat)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
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

func get(ctx context.Context, url string) (_ string, err error) {
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
