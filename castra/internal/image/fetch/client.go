package fetch

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// DefaultClient is a client for large files: proxies from the environment
// (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), HTTP/1.1 alone, whose one stream is
// faster than HTTP/2's and whose connection dies with a request that is given
// up, and no compression. Limits on waiting are Get's.
func DefaultClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 1 << 20,
		IdleConnTimeout:        30 * time.Second,
	}}
}

// transport is what makes the requests. The client itself is passed by, since
// its way with redirects prints what it was sent and its timeout is one for
// the whole download.
func transport(c *http.Client) http.RoundTripper {
	if c.Transport == nil {
		return http.DefaultTransport
	}
	return c.Transport
}

// open asks for the file from byte offset on, and follows redirects.
func (d *download) open(ctx context.Context, offset int64) (*http.Response, error) {
	at := d.url
	for hops := 0; ; hops++ {
		d.final = redact(at)
		req, err := d.newRequest(ctx, at, offset)
		if err != nil {
			return nil, err
		}
		resp, err := d.transport.RoundTrip(req)
		if err != nil {
			return nil, scrub(err)
		}
		to := resp.Header.Get("Location")
		if !redirects(resp.StatusCode) || to == "" {
			return resp, nil
		}
		resp.Body.Close()
		if at, err = d.follow(at, to, hops); err != nil {
			return nil, err
		}
	}
}

func (d *download) newRequest(ctx context.Context, at *url.URL, offset int64) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, scrub(err)
	}
	req.Close = true // on a kept connection net/http would log what a server sends too much
	req.Header.Set("User-Agent", "castra")
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		req.Header.Set("If-Range", d.validator)
	}
	if u := at.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	return req, nil
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow is where a redirect from at leads, after so many hops before it.
func (d *download) follow(at *url.URL, location string, hops int) (*url.URL, error) {
	refuse := func(to, reason string) (*url.URL, error) {
		return nil, &RedirectError{From: redact(at), To: to, Hops: hops, Reason: reason}
	}
	to, err := at.Parse(location)
	switch {
	case err != nil: // its text may hold a password that made the URL unreadable
		return refuse("", "the server names a place that is no URL")
	case hops >= d.limits.Redirects:
		return refuse(redact(to), "that is one more than the "+strconv.Itoa(d.limits.Redirects)+" hops that are followed")
	case to.Scheme == "http" && at.Scheme == "https":
		return refuse(redact(to), "it leads from https to http, where anybody can change what comes")
	case to.Scheme != "https" && to.Scheme != "http" || to.Host == "":
		return refuse(redact(to), "only http and https URLs are followed")
	}
	if to.User == nil && to.Scheme == at.Scheme && to.Host == at.Host {
		to.User = at.User // still the server that the name and password are for
	}
	return to, nil
}
