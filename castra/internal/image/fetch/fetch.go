package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"time"

	"castra.example/castra/castra/internal/image/digest"
)

// Request is what to download, and where to.
type Request struct {
	URL    string        // https://; with AllowPlain also http:// and file:///
	Digest digest.Digest // required: only these bytes are taken
	Size   int64         // bytes; 0: not known
	// Part is the absolute path of the partial file. Part+".json" keeps what
	// resuming needs. The caller holds a lock on it.
	Part string
	// AllowPlain is for a mirror that the user named: http and file, too. A
	// redirect from https to http is refused nevertheless.
	AllowPlain bool
	// Client's transport makes the requests; nil: DefaultClient's. Redirects,
	// cookies and time limits of the client itself are not used.
	Client *http.Client
	Limits Limits
	// Progress gets the bytes there, those of earlier runs included, and the
	// size, 0 where it is not known: at most every 100 ms, and once at the
	// end. It may go back, where a server cannot resume. May be nil.
	Progress func(done, total int64)
}

// download is one Get at work.
type download struct {
	req       Request
	limits    Limits
	url       *url.URL
	shown     string // url, redacted
	transport http.RoundTripper
	part      *part
	buffers   chan []byte
	rate      *rate

	validator string // of the bytes in part
	final     string // where the last answer came from, redacted
	page      bool   // the last body calls itself a web page
	mixed     bool   // part's bytes come from more than one response
	definite  bool   // where the last body ended without an error, the file ends
	high      int64  // the most bytes there were
	received  bool   // bytes came in this run
	tries     int
	told      time.Time // of the last call of Progress
}

// Get downloads a file. On nil Part is whole and verified, its record is gone,
// and the caller renames it. It is not waited for until it is on disk: after a
// power cut the digest has to decide again, and so does the one of a part. Otherwise the error is an *Error for
// what went wrong outside this computer, a *DiskError or *ForeignError for
// what went wrong on it, or wraps that of the context; what came so far is
// kept to be resumed, unless it is known to be wrong (*digest.MismatchError,
// *SizeError). A context that ends is heeded within a second.
func Get(ctx context.Context, r Request) error {
	u, err := check(r)
	if err != nil {
		return err
	}
	p, err := openPart(r.Part, r.Digest)
	if err != nil {
		return fmt.Errorf("partial download: %w", err)
	}
	defer p.f.Close()
	if r.Client == nil {
		r.Client = DefaultClient()
		defer r.Client.CloseIdleConnections()
	}
	limits := r.Limits.withDefaults()
	d := &download{
		req: r, limits: limits, url: u, shown: redact(u), final: redact(u), transport: transport(r.Client),
		part: p, buffers: newBuffers(), rate: newRate(limits),
	}
	p.need = r.Size
	whole, err := d.takeUp(ctx)
	if err != nil {
		return d.describe(ctx, err)
	}
	if !whole {
		err = d.run(ctx)
	}
	if err == nil {
		err = p.stillInPlace()
	}
	if err != nil {
		d.keep()
		return d.describe(ctx, err)
	}
	d.finished()
	return removeRecord(p.path)
}

// check refuses what cannot be asked for.
func check(r Request) (*url.URL, error) {
	u, err := url.Parse(r.URL)
	if err != nil { // its text may hold a password that made the URL unreadable
		return nil, errors.New("download: the URL cannot be read; special characters in it are written as %XX")
	}
	known, err := digest.Parse(r.Digest.String())
	switch plain := u.Scheme == "http" || u.Scheme == "file"; {
	case err != nil:
		return nil, fmt.Errorf("download of %s: a digest is required: %w", redact(u), err)
	case known != r.Digest:
		return nil, fmt.Errorf("download of %s: the digest %+v is not as digest.Parse gives it", redact(u), r.Digest)
	case !filepath.IsAbs(r.Part):
		return nil, fmt.Errorf("download of %s: the partial file's path %q is not absolute", redact(u), r.Part)
	case plain && !r.AllowPlain:
		return nil, fmt.Errorf("download of %s: only https is taken, and %s for a mirror of your own", redact(u), u.Scheme)
	case !plain && u.Scheme != "https":
		return nil, fmt.Errorf("download of %s: not an https URL", redact(u))
	case u.Scheme == "file" && (u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path)):
		return nil, fmt.Errorf("download of %s: a file URL has three slashes and an absolute path", redact(u))
	case u.Scheme != "file" && u.Host == "":
		return nil, fmt.Errorf("download of %s: the URL has no host", redact(u))
	case r.Size < 0:
		return nil, fmt.Errorf("download of %s: size %d", redact(u), r.Size)
	}
	return u, nil
}

// run downloads until the bytes are right. Wrong ones of which some are from
// an earlier response may be a mixture, so they are fetched once more, whole.
func (d *download) run(ctx context.Context) error {
	for again := false; ; again = true {
		err := d.tryAll(ctx)
		if err == nil {
			err = d.verify()
		}
		switch {
		case err == nil || !wrongContents(err):
			return err
		case !d.mixed || again:
			return errors.Join(err, d.part.empty())
		}
		if err := d.startOver(); err != nil {
			return err
		}
		d.high = 0
	}
}

// takeUp takes up what an earlier run left. Whole is true where nothing is
// missing.
func (d *download) takeUp(ctx context.Context) (whole bool, err error) {
	st, err := d.part.f.Stat()
	if err != nil {
		return false, fmt.Errorf("partial download: %w", err)
	}
	there, size := st.Size(), d.req.Size
	if there == 0 {
		return false, nil
	}
	r, err := readRecord(d.part.path)
	if err != nil {
		return false, err
	}
	resumes := r.resumes(bare(d.url), d.req.Digest, size, there) && d.url.Scheme != "file"
	if !resumes && size != 0 && there != size {
		return false, d.startOver()
	}
	// Where the size is not known or right, the record is not needed to see
	// that nothing is missing.
	if err := d.part.hashStored(ctx, d.tell); err != nil {
		return false, err
	}
	if d.part.digest() == d.req.Digest {
		return true, nil
	}
	if !resumes || there == size {
		return false, d.startOver()
	}
	d.validator, d.mixed, d.high = r.Validator, true, there
	return false, nil
}

// startOver throws away what is there.
func (d *download) startOver() error {
	d.mixed, d.validator = false, ""
	return d.part.empty()
}

// verify compares the digests.
func (d *download) verify() error {
	if want := d.req.Size; want > 0 && d.part.n != want {
		return d.pageOr(&SizeError{Got: d.part.n, Want: want})
	}
	return d.pageOr(d.req.Digest.Check(path.Base(d.url.Path), d.part.digest()))
}

// wrongContents tells that what came is not what was asked for.
func wrongContents(err error) bool {
	var mismatch *digest.MismatchError
	var size *SizeError
	return errors.As(err, &mismatch) || errors.As(err, &size) && !size.Announced
}

// keep leaves the part ready to be resumed, and nothing where there is nothing
// to resume. It follows a failure, which is the one to tell of, and whatever
// fails here costs at most a download from the beginning.
func (d *download) keep() {
	switch {
	case !d.part.inPlace():
	case d.part.n == 0:
		_ = d.part.remove()
	default:
		_ = d.save()
		_ = d.part.f.Truncate(d.part.n) // gives back the room that was set aside
	}
}

// describe makes of a failure what Get returns.
func (d *download) describe(ctx context.Context, err error) error {
	var disk *DiskError
	var foreign *ForeignError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("download of %s: %w", d.shown, ctx.Err())
	case errors.As(err, &disk), errors.As(err, &foreign):
		return fmt.Errorf("download of %s: %w", d.shown, err)
	}
	return &Error{URL: d.shown, Final: d.final, Tries: d.tries, Err: err}
}

// save writes what a later run needs to resume.
func (d *download) save() error {
	return record{URL: bare(d.url), Digest: d.req.Digest.String(), Validator: d.validator, Bytes: d.part.n}.write(d.part.path)
}
