package hale

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"

	"github.com/halevm/hale/api"
)

// Logs says which lines of a log to read.
type Logs struct {
	Source api.LogSource // "": what the program wrote
	Tail   *int          // how many of the last lines to begin with; nil: 100
	Follow bool          // go on with lines as they are written, until ctx ends or the instance is gone
	// Place keeps where it is, where it is not nil: reading again with that leaves nothing out and gives nothing twice. "" is Tail lines before the end.
	Place *string
}

// InstanceLogs reads lines of an instance's log, without their ends. An error is the last thing that comes.
func (c *Client) InstanceLogs(ctx context.Context, ref string, l Logs) iter.Seq2[string, error] {
	params := api.GetInstanceLogsParams{Source: given(l.Source), Tail: l.Tail}
	if l.Follow {
		params.Follow = &l.Follow
	}
	place := l.Place
	if place == nil {
		place = new(string)
	} else {
		ids := true
		params.Ids = &ids
	}
	return stream(ctx, c, func(ctx context.Context) (*http.Request, error) {
		params.LastEventID = *place
		return c.getInstanceLogs(ctx, ref, params)
	}, func(f frame) (string, error) {
		var line string
		err := json.Unmarshal(f.data, &line)
		return line, err
	}, func(f frame) { *place = cmp.Or(f.id, *place) })
}

// EventResync is the type of an event that tells a reader to list again: some that it has not seen are gone from the log.
const EventResync = "resync"

// Events follows what happens until ctx ends: from the event with the id after, or, where that is empty, from now on. An
// error is the last thing that comes; calling Events again with the id of the last event leaves nothing out.
func (c *Client) Events(ctx context.Context, after string) iter.Seq2[api.Event, error] {
	return c.EventsFrom(ctx, &after)
}

// EventsFrom is Events from *place on, and keeps in *place where it is: calling it again with that leaves nothing out, also when
// the stream broke before its first event.
func (c *Client) EventsFrom(ctx context.Context, place *string) iter.Seq2[api.Event, error] {
	return stream(ctx, c, func(ctx context.Context) (*http.Request, error) {
		return c.streamEvents(ctx, api.StreamEventsParams{LastEventID: *place})
	}, func(f frame) (api.Event, error) {
		var e api.Event
		err := json.Unmarshal(f.data, &e)
		*place = cmp.Or(e.ID, *place)
		return e, err
	}, func(f frame) { *place = cmp.Or(f.id, *place) })
}

// stream makes a request each time it is iterated over, and decodes the frames of its answer that have data; each is shown to
// those who look first.
func stream[T any](ctx context.Context, c *Client, request func(context.Context) (*http.Request, error), decode func(frame) (T, error), look ...func(frame)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx) // ends the connection when the loop is left
		defer cancel()
		var zero T
		resp, err := c.do(request(ctx))
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		for f, err := range frames(resp.Body) {
			if err != nil {
				yield(zero, c.transportError(ctx, fmt.Errorf("the stream broke: %w", err)))
				return
			}
			for _, l := range look {
				l(f)
			}
			if f.data == nil {
				continue
			}
			v, err := decode(f)
			if err != nil {
				yield(zero, fmt.Errorf("%s: the stream holds what the API does not say: %w", resp.Request.URL.Path, err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(zero, err)
		}
	}
}
