package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// ErrUnknownKind says that a record was written by a version of Castra that
// knows more kinds than this one. Readers skip such records.
var ErrUnknownKind = errors.New("unknown kind of event")

// Record is an event with its time and the ID of the workspace it happened in.
type Record struct {
	Time      time.Time
	Workspace string
	Event     Event
}

// timeLayout is RFC 3339 with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

type head struct {
	Time      string `json:"time"`
	Type      Kind   `json:"type"`
	Workspace string `json:"workspace"`
	VM        string `json:"vm,omitempty"`
}

// MarshalJSON writes one flat object: time (UTC, milliseconds), type,
// workspace, vm where the event is about one, then the event's own fields.
func (r Record) MarshalJSON() ([]byte, error) {
	if r.Event == nil {
		return nil, errors.New("record without an event")
	}
	first, err := encode(head{r.Time.UTC().Format(timeLayout), r.Event.Kind(), r.Workspace, r.Event.Subject()})
	if err != nil {
		return nil, err
	}
	own, err := encode(r.Event)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", r.Event.Kind(), err)
	}
	// Two objects become one: every event has at least one field of its own.
	return append(append(first[:len(first)-1], ','), own[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON wrote. Fields it does not know are
// ignored; a type it does not know is ErrUnknownKind.
func (r *Record) UnmarshalJSON(data []byte) error {
	var h head
	if err := json.Unmarshal(data, &h); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	t, err := time.Parse(time.RFC3339, h.Time)
	if err != nil {
		return fmt.Errorf("event %s: %w", h.Type, err)
	}
	for _, zero := range all {
		if zero.Kind() != h.Type {
			continue
		}
		v := reflect.New(reflect.TypeOf(zero))
		if err := json.Unmarshal(data, v.Interface()); err != nil {
			return fmt.Errorf("event %s: %w", h.Type, err)
		}
		if vm := v.Elem().FieldByName("VM"); vm.IsValid() {
			vm.SetString(h.VM)
		}
		*r = Record{Time: t, Workspace: h.Workspace, Event: v.Elem().Interface().(Event)}
		return nil
	}
	return fmt.Errorf("event %q: %w", h.Type, ErrUnknownKind)
}

// encode is json.Marshal that leaves <, > and & readable.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
