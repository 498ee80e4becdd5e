// Package event is the closed set of things that happen while Castra works,
// and the Reporter that hears them. The same facts feed the text for people,
// the JSON lines for programs and a workspace's events.jsonl.
//
//	e := event.NewEmitter(workspaceID, time.Now, reporter)
//	e.Emit(event.Ready{VM: "web-0", User: "root", Host: "127.0.0.1", Port: 40123, ElapsedMS: 5400})
//
// The set only grows: kinds and fields are added, never renamed or removed.
// Readers skip what they do not know (see ErrUnknownKind).
package event
