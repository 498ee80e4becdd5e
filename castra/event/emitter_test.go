package event

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type recorder struct {
	records []Record
	inside  int // no lock: -race and the count show a second caller
	overlap bool
}

func (r *recorder) Report(rec Record) {
	r.inside++
	r.overlap = r.overlap || r.inside != 1
	r.records = append(r.records, rec)
	r.inside--
}

type panicking struct{ calls int }

func (p *panicking) Report(Record) {
	p.calls++
	panic("no terminal")
}

func TestEmitStampsAndOrders(t *testing.T) {
	r := &recorder{}
	e := NewEmitter("w", func() time.Time { return at }, nil, r)
	e.Emit(CommandAccepted{Command: "up"})
	e.Emit(nil)
	e.Emit(Summary{Command: "up"})
	require.Equal(t, []Record{
		{Time: at, Workspace: "w", Event: CommandAccepted{Command: "up"}},
		{Time: at, Workspace: "w", Event: Summary{Command: "up"}},
	}, r.records)
}

func TestNilEmitterIsSilent(t *testing.T) {
	var e *Emitter
	require.NotPanics(t, func() { e.Emit(CommandAccepted{}) })
}

func TestDefaultClock(t *testing.T) {
	r := &recorder{}
	NewEmitter("w", nil, r).Emit(CommandAccepted{})
	require.False(t, r.records[0].Time.IsZero())
}

func TestPanickingReporterIsDropped(t *testing.T) {
	bad, worse, good := &panicking{}, &panicking{}, &recorder{}
	e := NewEmitter("w", nil, bad, good, worse)
	e.Emit(CommandAccepted{Command: "up"})
	e.Emit(Summary{Command: "up"})
	require.Equal(t, 1, bad.calls)
	require.Equal(t, 1, worse.calls)
	require.Len(t, good.records, 4)
	require.Equal(t, CommandAccepted{Command: "up"}, good.records[0].Event)
	require.Contains(t, good.records[1].Event.(Message).Text, "no terminal")
	require.Equal(t, Summary{Command: "up"}, good.records[3].Event)
}

func TestConcurrentEmitIsSerial(t *testing.T) {
	r := &recorder{}
	e := NewEmitter("w", nil, r)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 50 {
				e.Emit(Waiting{VM: fmt.Sprint("vm-", i)})
			}
		})
	}
	wg.Wait()
	require.Len(t, r.records, 16*50)
	require.False(t, r.overlap)
}
