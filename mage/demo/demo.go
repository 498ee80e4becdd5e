// Package demo runs the demo project: two VMs that serve a page.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"castra.example/castra/castra"
)

const (
	httpPort   = 80
	fetchLimit = 30 * time.Second
	fetchPoll  = 200 * time.Millisecond
)

// Config is the demo's castra.toml, seen from the repository's root.
var Config = filepath.Join("mage", "demo", "project", "castra.toml")

// Show fetches the page of every VM of the running demo from this computer,
// and prints what came.
func Show(ctx context.Context, p *castra.Project) error {
	ports, err := p.Ports(ctx)
	if err != nil {
		return err
	}
	fetched := 0
	for _, port := range ports.Ports {
		if port.GuestPort != httpPort || !port.Active {
			continue
		}
		url := "http://" + net.JoinHostPort(port.HostIP, strconv.Itoa(port.HostPort)) + "/"
		page, err := fetch(ctx, url)
		if err != nil {
			return fmt.Errorf("the page of %s: %w", port.VM, err)
		}
		if !strings.Contains(page, "Hello from "+port.VM) {
			return fmt.Errorf("the page of %s at %s is another one: %q", port.VM, url, page)
		}
		fmt.Fprintf(os.Stdout, "%s answers at %s: %s\n", port.VM, url, strings.TrimSpace(page))
		fetched++
	}
	if fetched == 0 {
		return errors.New("no VM forwards its port 80")
	}
	return nil
}

// fetch tries until the page comes or the time is over.
func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	tick := time.NewTicker(fetchPoll)
	defer tick.Stop()
	for {
		page, err := get(ctx, url)
		if err == nil {
			return page, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w, for %s", err, fetchLimit)
		case <-tick.C:
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return string(body), err
}
